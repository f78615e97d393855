"""A prompt of one's own: from its file to an adapter, and an honest verdict (docs/internalize.md).

`python -m gcd.internalize` checks what it is given (`checks`), puts it into a git worktree of the
last commit (`worktree`), makes the inputs that are held out (`held_out`) and runs the pipeline of
the task `custom` there. Then it reads what the rows replied: how near each comes to the prompted
teacher (`fidelity`, `agreement`), what that saves (`savings`), how it differs from the version
before (`drift`), and what follows (`verdict`), for exports/<name>/ (`report`).
"""
