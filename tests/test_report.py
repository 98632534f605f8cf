"""Reports as files, and the intervals in them."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from cappy_select import InputError
from cappy_select.core import DataError
from cappy_select.evaluate.intervals import Interval, of_few, paired, resampled, stratified
from cappy_select.evaluate.report import Picture, Report, Table, check_folder, markdown, shown, write_report

PNG = b"\x89PNG\r\n\x1a\n"


def line(figure):
    figure.subplots().plot([1, 2, 3])


def report(**more):
    table = Table("Picks <b>", ("way", "quality"), [("a|b <script>", 0.5), ("none", None)], "A & B.")
    return Report("What it is <i>", ["One & two."], [table], [Picture("line", 'A "line"', line)], {"n": 2}, **more)


def test_a_report_is_four_kinds_of_file(tmp_path):
    assert write_report(tmp_path / "a" / "b", report()) is True
    folder = tmp_path / "a" / "b"
    assert sorted(file.name for file in folder.iterdir()) == ["line.png", "report.html", "report.json", "report.md"]
    png = (folder / "line.png").read_bytes()
    assert png.startswith(PNG)
    assert int.from_bytes(png[16:20], "big") == 8 * 120  # its width: 8 inches at 120 a inch
    assert json.loads((folder / "report.json").read_text()) == {"n": 2}
    text = (folder / "report.md").read_text()
    assert "| a\\|b &lt;script> | 50.0 % |" in text
    assert '![A "line"](line.png)' in text


EVIL = (
    "# h\n- x\n> q\n1. n ![i](http://e/x.png) [l](javascript:x) `c` *b* _e_ ~s~ $m$ | <img src=x onerror=y> "
    "&lt; http://e.example www.e.example a@b.example \x1b[31m\u202e\x9b <!-- </title><script>z</script>"
)


def evil_report():
    table = Table(EVIL, (EVIL, "y"), [(EVIL, None), ("x", EVIL)], EVIL)
    return Report(EVIL, [EVIL, "- a", "1. b", "===", "> c"], [table], [Picture("line", EVIL, line)], {})


def test_no_text_of_a_report_adds_an_element_to_its_page(tmp_path):
    write_report(tmp_path, evil_report())
    page = (tmp_path / "report.html").read_text()
    found = []

    class Elements(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, sorted(name for name, _ in attrs)))

        def handle_comment(self, data):
            found.append(("comment", [data]))

    Elements().feed(page)
    ours = "html head meta title style body h1 h2 p table thead tbody tr th td figure img figcaption"
    assert {tag for tag, _ in found} == set(ours.split())
    assert {name for _, names in found for name in names} == {
        "lang", "charset", "http-equiv", "content", "class", "alt", "src"
    }  # fmt: skip
    assert "default-src 'none'" in page
    assert not set("\x1b\u202e\x9b") & set(page)


def test_no_text_of_a_report_is_markdown():
    said = markdown(evil_report())
    for markup in (
        "http://e",
        "www.e",
        "a@b",
        "<img",
        "<!--",
        "<script",
        "\n- ",
        "\n1. ",
        "\n===",
        "\n>",
        "\x1b",
        "\x9b",
    ):
        assert markup not in said
    assert re.search(r"(?<![\\!])[`*~$\[]|(?<!\\)_e|e(?<!\\)_ ", said) is None  # the pictures' own brackets are ours
    rows = [row for row in said.splitlines() if row.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3] * 4


def test_the_page_needs_no_other_file_and_escapes_what_it_says(tmp_path):
    write_report(tmp_path, report())
    page = (tmp_path / "report.html").read_text()
    found = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))

    Tags().feed(page)
    assert {"script", "b", "i", "link", "iframe"}.isdisjoint(tag for tag, _ in found)
    (image,) = [attributes for tag, attributes in found if tag == "img"]
    assert image["alt"] == 'A "line"'
    assert not re.search(r'(src|href)="(?!data:)', page)
    content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert content == (tmp_path / "line.png").read_bytes()
    assert "a|b &lt;script&gt;" in page
    assert "A &amp; B." in page


def test_a_second_report_replaces_the_first(tmp_path):
    write_report(tmp_path, report())
    write_report(tmp_path, Report("Another", data=Interval(mean=1, low=0, high=2)))
    assert json.loads((tmp_path / "report.json").read_text()) == {"mean": 1, "low": 0, "high": 2}
    assert (tmp_path / "report.md").read_text() == "# Another\n"
    assert not (tmp_path / "line.png").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        write_report(tmp_path / "file", report())


def test_a_second_report_leaves_pictures_that_are_not_the_firsts(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    write_report(tmp_path, report())
    write_report(tmp_path, Report("![x](mine.png)", ["![x](mine.png)", "see ![x](mine.png)"]))
    write_report(tmp_path, Report("Another"))
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_a_report_that_can_not_be_finished_leaves_no_older_json_beside_its_files(tmp_path):
    write_report(tmp_path, report())
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html" / "in the way").mkdir(parents=True)
    with pytest.raises(DataError):
        write_report(tmp_path, report())
    assert not (tmp_path / "report.json").exists()


def test_a_folder_that_can_not_be_is_said_and_none_is_made(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file is a file; give another folder"):
            check_folder(folder)
    if os.geteuid():  # root may write anywhere
        (tmp_path / "shut").mkdir(0o500)
        with pytest.raises(InputError, match="shut can't be written to"):
            check_folder(tmp_path / "shut" / "folder")
        (tmp_path / "shut").rmdir()
    check_folder(tmp_path / "new" / "folder")
    check_folder("relative")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_names_are_no_formulas_and_may_be_of_any_script(tmp_path, recwarn):
    def named(figure):
        figure.subplots().set_title(r"tasks of $\frac$.jsonl, 川 and हिन्दी")

    assert write_report(tmp_path, Report("R", pictures=[Picture("p", "P", named)]))
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)
    assert not recwarn.list


def test_a_picture_that_can_not_be_drawn_is_said_and_costs_nothing_else(tmp_path):
    def broken(figure):
        raise ZeroDivisionError("by < 0")

    found = report()
    pictures = [Picture("broken", "B", broken), *found.pictures]
    assert write_report(tmp_path, Report("R", tables=found.tables, pictures=pictures, data={"n": 2}))
    assert json.loads((tmp_path / "report.json").read_text()) == {"n": 2}
    assert (tmp_path / "line.png").exists()
    text = (tmp_path / "report.md").read_text()
    assert "The picture broken can't be drawn: ZeroDivisionError: by &lt; 0" in text
    assert "50.0 %" in text
    assert "broken.png" not in text


def test_without_matplotlib_a_report_has_its_tables_and_says_so(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from cappy_select.evaluate.report import *\n"
        "table = Table('T', ('x', 'y'), [('a', 0.25)])\n"
        f"print(write_report({str(tmp_path)!r}, Report('R', tables=[table], pictures=[Picture('p', 'P', None)])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    assert not (tmp_path / "p.png").exists()
    assert "25.0 %" in (tmp_path / "report.html").read_text()
    assert "p.png" not in (tmp_path / "report.md").read_text()


def test_cells():
    assert [shown(cell) for cell in (None, "x", 0.1234, 1, 0.0)] == ["–", "x", "12.3 %", "100.0 %", "0.0 %"]
    assert "|---|---:|" in markdown(report())


def test_nothing_that_is_said_is_markup_in_markdown():
    said = r"a\|<img>&lt;"
    table = Table(said, (said, "y"), [(said, None)], said)
    text = markdown(Report(said, [said], [table], [Picture("p", said, line)]))
    assert text.count(r"a\\\|&lt;img>&amp;lt;") == 7
    assert "<" not in text


def test_an_interval_is_as_wide_as_theory_says():
    differences = np.random.default_rng(3).normal(0.1, 1.0, 400)
    found = paired(differences)
    half = 1.96 * differences.std() / 20
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - half, abs=0.01)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.01)
    assert paired(differences) == found
    assert paired(differences, seed=1) != found


def test_95_of_100_intervals_hold_the_true_mean():
    random = np.random.default_rng(0)
    held = 0
    for trial in range(400):
        found = paired(random.choice([-1.0, 0.0, 1.0], 60, p=[0.2, 0.3, 0.5]), draws=1000, seed=trial)
        held += found.low <= 0.3 <= found.high
    assert 0.91 <= held / 400 <= 0.98


def test_intervals_of_nothing_and_of_the_same():
    with pytest.raises(ValueError, match="no differences"):
        paired([])
    assert paired([0.5, 0.5, 0.5]) == Interval(mean=0.5, low=0.5, high=0.5)
    assert str(Interval(mean=0.031, low=-0.012, high=0.05)) == "+3.1 (-1.2 to +5.0)"
    assert str(Interval(mean=-0.0, low=-0.0001, high=0.0)) == "+0.0 (+0.0 to +0.0)"


def test_one_thing_has_no_interval():
    for found in (paired([0.2]), paired([0.1, 0.3], ["a", "a"])):
        assert (found.mean, found.low, found.high) == (pytest.approx(0.2), None, None)
        assert str(found) == "+20.0 (no interval: one instance)"
    one, many = (np.ones(count) / 4 for count in (1, 30))
    found = stratified([(0.5, many, np.ones(30)), (0.5, one, np.ones(1))])
    assert (found.mean, found.low, found.high) == (0.25, None, None)


def test_intervals_over_small_strata_are_as_wide_as_over_one_of_all():
    random = np.random.default_rng(1)
    gains = random.normal(0, 1, 400)

    def width(size):
        strata = [(size / 400, part, np.ones(size)) for part in gains.reshape(-1, size)]
        found = stratified(strata)
        return found.high - found.low

    # Strata of two without the correction: narrower by the root of a half.
    assert width(400) == pytest.approx(2 * 1.96 / 20, rel=0.1)
    assert width(2) == pytest.approx(width(400), rel=0.12)


def test_intervals_of_few_are_said_to_be_narrow():
    assert of_few(10) == []
    (said,) = of_few(9, "instances")
    assert "as few as 9 instances" in said


def test_a_resample_is_weighed_and_does_not_depend_on_the_block(monkeypatch):
    gains, weights = np.array([1.0, 0.0, 0.0]), np.array([3.0, 1.0, 1.0])
    means = resampled(gains, weights, draws=2000)
    assert set(np.round(means, 6)) <= {round(k / (3 * k + 3 - k), 6) for k in range(4)}
    whole = resampled(gains, weights, draws=100)
    monkeypatch.setattr("cappy_select.evaluate.intervals._AT_ONCE", 30)
    assert resampled(gains, weights, draws=100).tolist() == whole.tolist()


def test_things_of_one_group_are_no_independent_evidence():
    gains = [1.0, -1.0] * 20
    alone, together = (
        paired(gains),
        paired([gain for gain in gains for _ in range(5)], [n for n in range(40) for _ in range(5)]),
    )
    assert together.mean == alone.mean
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)


@pytest.mark.parametrize("name", ["report.md", "report.html", "report.json"])
def test_a_report_of_somebody_elses_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("<html>my own</html>")
    for write in (check_folder, lambda folder: write_report(folder, report())):
        with pytest.raises(InputError, match=f"holds {name} that no report of ours wrote"):
            write(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "<html>my own</html>")]
