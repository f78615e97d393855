"""A page is shown as Mind2Web shows it: what is near the candidates, on one line."""

import pytest

from gcd.tasks.web_browsing.page import parse_page, prune_tree, view_page


def shown(html: str, *candidates: str) -> str:
    return view_page(parse_page(html), list(candidates)).text


def leaf(number: int | str, tag: str = "p") -> str:
    return f'<{tag} backend_node_id="{number}" title="n{number}"/>'


def test_three_siblings_on_either_side_stay():
    page = f'<html backend_node_id="root">{"".join(leaf(number) for number in range(9))}</html>'
    assert shown(page, "4") == (
        "<html><p n1 /><p n2 /><p n3 /><p id=0 n4 /><p n5 /><p n6 /><p n7 /></html>"
    )
    assert shown(page, "0") == "<html><p id=0 n0 /><p n1 /><p n2 /><p n3 /></html>"


def test_text_is_no_sibling():
    texts = '<text backend_node_id="t">word</text>' * 3
    page = f'<html backend_node_id="root">{leaf(1)}{texts}{leaf(2)}</html>'
    assert "n1" in shown(page, "2")


def test_six_generations_of_descendants_stay():
    page = ""
    for depth in reversed(range(10)):
        page = f'<p backend_node_id="{depth}" title="n{depth}">{page}</p>'
    text = shown(f'<html backend_node_id="root">{page}</html>', "0")
    assert "n6" in text
    assert "n7" not in text


def test_fifty_descendants_stay():
    page = f'<html backend_node_id="root">{"".join(leaf(number) for number in range(60))}</html>'
    text = shown(page, "root")
    assert "n49 />" in text
    assert "n50 />" not in text


def test_an_element_that_says_nothing_gives_way_to_its_only_child():
    page = (
        '<html backend_node_id="r"><div backend_node_id="1"><div backend_node_id="2">'
        f'{leaf(3)}</div></div><div backend_node_id="4">{leaf(5)}{leaf(6)}</div></html>'
    )
    assert shown(page, "3") == "<html><p id=0 n3 /></html>"
    # A candidate stays, and so does what encloses two.
    assert shown(page, "2", "5") == (
        "<html><div id=0><p n3 /></div><div><p id=1 n5 /><p n6 /></div></html>"
    )


def test_only_candidates_keep_their_ids():
    page = parse_page(f'<html backend_node_id="r">{leaf(1)}{leaf(2)}</html>')
    pruned = prune_tree(page, ["2"])
    assert pruned.xpath("//@backend_node_id") == ["2"]
    assert page.xpath("//@backend_node_id") == ["r", "1", "2"]  # the page itself is untouched


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ('title="Where To" role="Tab"', "tab where to"),  # lower case; role comes first
        ('role="button" type="button"', "button"),  # equal values once
        ('title="a b c d e f g"', "a b c d e"),
        ('title="fourteen-chars fifteen-letters"', "fourteen-chars"),
        ('title="http://x" name="none" role="Hidden"', ""),
        ('href="x" style="y" id="z"', ""),
        ('title="a &quot;b&quot;"', 'a "b"'),
        (
            'alt="1 2 3 4 5" label="6 7 8 9 10" title="a b c d e" name="f g h i j" class="k"',
            "1 2 3 4 5 6 7 8 9 10 a b c d e f g h i j",
        ),
    ],
)
def test_attributes_become_a_few_words(attributes: str, words: str):
    html = f'<html backend_node_id="r"><a backend_node_id="1" {attributes}/></html>'
    assert shown(html, "1") == f"<html><a id=0 {words + ' ' if words else ''}/></html>"


def test_text_is_cut_and_unescaped():
    long = " ".join(map(str, range(30)))
    html = (
        '<html backend_node_id="r"><p backend_node_id="1">'
        f'<text backend_node_id="2">{long}</text><text backend_node_id="3">say "a &amp; &lt;b"'
        "</text></p></html>"
    )
    twenty = " ".join(map(str, range(20)))
    assert shown(html, "1") == f"<html><p id=0>{twenty}say a & <b </p></html>"


def test_choices_are_the_first_ten_words_in_document_order():
    words = " ".join(f"w{number}" for number in range(15))
    html = (
        f'<html backend_node_id="r">{leaf(7)}<p backend_node_id="5"><text backend_node_id="6">'
        f"{words}</text></p></html>"
    )
    view = view_page(parse_page(html), ["5", "7"])
    assert view.choices == [
        ("7", "<p id=0 n7 />"),
        ("5", "<p id=1>w0 w1 w2 w3 w4 w5 w6 w7 w8"),
    ]


def test_what_is_no_page_is_refused():
    with pytest.raises(ValueError, match="not well-formed"):
        parse_page("<html><p></html>")
    with pytest.raises(KeyError):
        view_page(parse_page(f'<html backend_node_id="r">{leaf(1)}</html>'), ["2"])
