"""Ablations and seeds: many runs of the pipeline, each a DVC experiment with other params.

`definitions` reads what is asked (experiments/*.yaml), `points` makes a params.yaml of each point,
`worktrees` runs one in a copy of the last commit, `queue` several at a time, and `collecting` and
`records` write what came out to reports/ablations/ and reports/seeds/. `showing` puts these records
into the report, and is all that the `report` stage calls.
"""
