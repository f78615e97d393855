"""Search as Lucene did it: the indexed texts, and the rankings that pyserini gave over them."""

import gzip
import json

from gcd.tasks.web_shopping.catalogue import make_products, read_json
from gcd.tasks.web_shopping.search import SearchIndex, contents

HITS = 50
FIRST = 10
MINIMUM_OVERLAP = 0.99


def test_web_shopping_indexed_texts(realdata, tally):
    results = []
    for name in ("documents_100.jsonl", "products_1000.json.gz"):
        documents = read_json(realdata("webshop", "products", name))
        products = make_products(documents, {}, {}, name)
        texts = {product.asin: contents(product) for product in products}
        results += [
            (f"{name}:{document['id']}", texts.get(document["id"]) == document["contents"])
            for document in documents
        ]
    tally("web shopping, indexed texts", results)


def test_web_shopping_rankings(realdata, tally):
    products = realdata("webshop", "products", "products_1000.json.gz")
    documents = json.loads(gzip.decompress(products.read_bytes()))
    index = SearchIndex((document["id"], document["contents"]) for document in documents)
    examples = realdata("webshop", "oracle", "lucene_bm25_top50_examples.json")
    first_hits, first_ten, overlaps = [], [], []
    for number, case in enumerate(json.loads(examples.read_text())):
        name = f"{number} {case['query']!r}"
        found = index.search(case["query"], HITS)
        expected = [asin for asin, _ in case["top"]]
        first_hits.append((name, found[:1] == expected[:1]))
        shared = [asin in found[:FIRST] for asin in expected[:FIRST]]
        first_ten += [
            (f"{number} {asin}", hit) for asin, hit in zip(expected, shared, strict=False)
        ]
        # Of a query with fewer than ten hits all count, and none beyond them.
        possible = max(len(shared), len(found[:FIRST]))
        overlaps.append(sum(shared) / possible if possible else 1.0)
    tally("web shopping, first hit of a ranking", first_hits)
    tally("web shopping, hits among the first 10", first_ten, MINIMUM_OVERLAP)
    assert sum(overlaps) / len(overlaps) >= MINIMUM_OVERLAP
