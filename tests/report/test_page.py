"""The report is one file, well formed, with every claim beside its figure."""

import base64
import re
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from lgn_analysis import report
from lgn_analysis.report.page import page
from lgn_analysis.report.templating import TEMPLATES, marked

pytestmark = pytest.mark.xdist_group("smoke")

VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """Every element with its attributes, the section it stands in, and whether tags match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "section":
            self.section = found["id"]
        self.elements.append((tag, found, getattr(self, "section", None)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        section = getattr(self, "section", None)
        self.text[section] = self.text.get(section, "") + data

    def of(self, wanted):
        return [(found, section) for tag, found, section in self.elements if tag == wanted]


@pytest.fixture(scope="module")
def text(made):
    return made.report.page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(text):
    return Outline(text)


def test_every_element_is_closed(outline):
    assert outline.open == []
    assert outline.of("h1")


def test_nothing_is_loaded_from_elsewhere(text, outline):
    assert not [tag for tag, _, _ in outline.elements if tag in {"script", "link", "iframe"}]
    sources = [found["src"] for found, _ in outline.of("img")]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_every_figure_is_in_the_page_under_its_claim(made, outline):
    shown = {found["src"].partition(",")[2]: section for found, section in outline.of("img")}
    claims = {"gap": "C2", "hessian_trace": "C8", "lemma_1": "C8"}
    assert len(shown) == len(claims)
    for name, claim in claims.items():
        png = base64.b64encode((made.folder / f"{name}.png").read_bytes()).decode()
        assert shown[png] == claim
    assert all(found["alt"] for found, _ in outline.of("img"))


def test_every_verdict_stands_in_the_summary_and_under_its_claim(made, outline):
    for verdict in report.read_ledger(made.folder):
        number = verdict.claim.id.split()[0]
        for section in ("summary", number) if verdict.claim.primary else (number,):
            assert verdict.claim.id in outline.text[section]
            assert verdict.outcome in outline.text[section]
            if verdict.claim.primary:
                assert verdict.claim.paper in outline.text[section]
        assert verdict.reason in outline.text[number]


def test_every_link_leads_somewhere(made, outline):
    anchors = {found["id"] for _, found, _ in outline.elements if "id" in found}
    targets = [found["href"] for found, _ in outline.of("a")]
    assert "gap.effects.csv" in targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://arxiv.org/"):
            assert (made.folder / target).is_file()


def test_how_to_reproduce_names_command_commit_versions_device_and_seeds(made, outline):
    from lgn_analysis.report.provenance import read_facts

    facts = read_facts(made.folder, "gap")
    said = outline.text["reproduce"]
    for part in (facts["command"], facts["commit"], facts["device"], "0, 1", "torch", "smoke"):
        assert part in said


def test_equal_inputs_give_equal_bytes(made, text):
    assert page(report.read_ledger(made.folder), made.folder) == text


def test_what_comes_from_outside_is_escaped():
    assert marked("a < b, `x<y` and *so*") == "a &lt; b, <code>x&lt;y</code> and <em>so</em>"
    assert marked(":func:`~a.b` says") == "<code>a.b</code> says"
    assert marked("2 * 3 * 4") == "2 * 3 * 4"
    macros = TEMPLATES.get_template("macros.html.j2").module
    said = macros.pairs([("a<", Markup("<b>1</b>")), ("gone", "")])
    assert said == "<dl><dt>a&lt;</dt><dd><b>1</b></dd></dl>"
    assert "<dd>&lt;b&gt;" in macros.pairs([("a", "<b>")])
    assert '<th scope="col">x&amp;y</th>' in macros.table(["x&y"], caller=lambda: "<td>")
    assert "&lt;td&gt;" in macros.table(["x"], caller=lambda: "<td>")
