"""Expected outputs are written down by hand from PromptSource's rules, not produced by this code."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_select import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.readers import READERS
from cappy_select.data.readers.options import with_options
from cappy_select.data.readers.prompt_templates import Template, find_templates, load_templates
from cappy_select.data.readers.promptsource import read_promptsource
from cappy_select.data.readers.rendering import Renderer
from cappy_select.data.readers.subsample import Draw

AG_NEWS = r"""dataset: ag_news
templates:
  24e44a81-a18a-42dd-a71c-5b31b2d2cb39: !Template
    answer_choices: World politics ||| Sports ||| Business ||| Science and technology
    id: 24e44a81-a18a-42dd-a71c-5b31b2d2cb39
    jinja: "What label best describes this news article?\n{{text}} ||| \n{{answer_choices[label]\
      \ }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages:
      - en
      metrics:
      - Accuracy
      original_task: true
    name: classify_question_first
    reference: ''
  918267e0-af68-4117-892d-2dbe66a58ce9: !Template
    answer_choices: null
    id: 918267e0-af68-4117-892d-2dbe66a58ce9
    jinja: 'Write a headline for the section {{ ["World", "Sports", "Business", "Science"][label] }}.

      |||

      {{ text }}'
    metadata: !TemplateMetadata
      choices_in_prompt: null
      original_task: false
    name: write
    reference: ''
"""
ROWS = [{"text": "Oil prices rose.", "label": 2}, {"text": "The match ||| ended.", "label": 1}]


@pytest.fixture
def ag_news(tmp_path):
    (tmp_path / "templates.yaml").write_text(AG_NEWS)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def read(folder, problems=None, file="train.jsonl", **options):
    problems = problems or Problems(strict=True)
    found = read_promptsource(folder / file, problems, templates=folder / "templates.yaml", **options)
    return [instance for _, instance in found]


def render(jinja, example, choices=None, seed="0", **options):
    return Renderer(Template(name="t", jinja=jinja, answer_choices=choices), **options).render(example, seed)


def test_ag_news_becomes_what_promptsource_makes_of_it(ag_news):
    first, turned, second, turned_second = read(ag_news)
    assert first.model_dump() == {
        "id": "ag_news|train|classify_question_first|#1",
        "task": "ag_news",
        "instruction": "What label best describes this news article?\nOil prices rose.",
        "references": ("Business",),
        "choices": ("World politics", "Sports", "Business", "Science and technology"),
        "negatives": (),
        "template": "classify_question_first",
        "split": None,
        "group": "ag_news|train|#1",
    }
    assert turned.instruction == "Write a headline for the section Business."
    assert (turned.references, turned.choices) == (("Oil prices rose.",), None)
    assert second.instruction == "What label best describes this news article?\nThe match ||| ended."
    assert turned_second.references == ("The match ||| ended.",)
    assert first.group == turned.group != second.group
    assert len({first.id, turned.id, second.id, turned_second.id}) == 4


def test_turned_around_templates_can_be_left_out(ag_news):
    assert {instance.template for instance in read(ag_news, turned_around=False)} == {"classify_question_first"}


def test_glue_mrpc():
    jinja = (
        "Does the sentence\n{{sentence1}}\nparaphrase (that is, mean the same thing as) this sentence?"
        "\n{{sentence2}}\n|||\n{{ answer_choices[label] }}\n"
    )
    example = {"sentence1": "He left.", "sentence2": "He went away.", "label": 1, "idx": 0}
    rendered = render(jinja, example, "no ||| yes")
    assert rendered.prompt == (
        "Does the sentence\nHe left.\nparaphrase (that is, mean the same thing as) this sentence?\nHe went away."
    )
    assert (rendered.targets, rendered.choices) == (("yes",), ("no", "yes"))


def test_a_template_that_holds_for_some_rows_leaves_the_others_out(ag_news):
    mrpc = '{% if label == 1 %}Paraphrase: "{{sentence1}}"\n|||\n{{sentence2}}{% endif %}'
    assert render(mrpc, {"sentence1": "a", "sentence2": "b", "label": 0}) is None
    assert render(mrpc, {"sentence1": "a", "sentence2": "b", "label": 1}).targets == ("b",)
    assert render("{{ a }} ||| {{ b }}", {"a": "x", "b": "  "}) is None
    assert render("{{ a }} ||| {{ b }}", {"a": "", "b": "x"}) is None
    yaml = AG_NEWS.replace("'Write a", "'{% if label == 1 %}Write a").replace("{{ text }}'", "{{ text }}{% endif %}'")
    (ag_news / "templates.yaml").write_text(yaml)
    left_out = Counter()
    assert len(read(ag_news, left_out=left_out)) == 3
    assert left_out == {"ag_news|write": 1}


def test_answer_choices_may_depend_on_the_row():
    cos_e = (
        "{{ question }}\nChoose the most suitable option to answer the above question.\nOptions:\n"
        "{% for k in range(choices | length) %}\n{{'ABCDE'[k]}}. {{choices[k]}}\n{% endfor %}\n|||\n{{answer}}"
    )
    example = {"question": "Where is a pen?", "choices": ["desk", "sky ||| sea"], "answer": "sky ||| sea"}
    rendered = render(cos_e, example, '{{ choices | join("|||") }}')
    assert rendered.choices == ("desk", "sky ||| sea")
    assert rendered.targets == ("sky ||| sea",)
    assert (
        rendered.prompt
        == (
            "Where is a pen?\nChoose the most suitable option to answer the above question.\nOptions:\n\n"
            "A. desk\n\nB. sky ||| sea\n"
        ).strip()
    )


def test_zip_nested_values_and_several_targets():
    jinja = (
        "{% for who, said in zip(dialogue.speaker, dialogue.text) %}{{ who }}: {{ said }}\n{% endfor %}"
        "{{ extra[0].name }}|||{{ answers | join(' ||| ') }}"
    )
    example = {
        "dialogue": {"speaker": ["A", "B"], "text": ["Hi.", "Ho."]},
        "extra": [{"name": "End"}],
        "answers": ["one", "two"],
    }
    rendered = render(jinja, example)
    assert rendered.prompt == "A: Hi.\nB: Ho.\nEnd"
    assert rendered.targets == ("one", "two")
    assert render("{{ x | most_frequent | join(', ') }} ||| y", {"x": ["b", "a", "c", "a", "b"]}).prompt == "b, a"


@given(st.text("a|{}%# \n", min_size=1), st.text("a|{}%# \n", min_size=1))
def test_an_example_s_own_text_comes_through_whole(asked, told):
    rendered = render("Q: {{ asked }} ||| A: {{ told }}", {"asked": asked, "told": told})
    assert rendered.prompt == f"Q: {asked}".strip()
    assert rendered.targets == (f"A: {told}".strip(),)


@given(st.integers(0, 200), st.integers(1, 200), st.integers())
def test_a_draw_takes_exactly_so_many(total, limit, seed):
    draw = Draw(total, limit, seed)
    assert sum(draw.takes_next() for _ in range(total)) == min(total, limit)


def test_choice_depends_on_the_seed_and_the_example_alone():
    jinja = "{{ ['a', 'b', 'c', 'd'] | choice }}{{ range(9) | choice }}{{ [1, 2, 3] | random }} ||| x"
    outputs = [render(jinja, {}, seed=str(seed)).prompt for seed in range(20)]
    assert outputs == [render(jinja, {}, seed=str(seed)).prompt for seed in range(20)]
    assert len(set(outputs)) > 10


def test_values_are_cut_at_2048_characters_at_the_end_of_a_word():
    text = "word " * 1000
    cut = render("Sum: {{ text }} ||| {{ text }}", {"text": text})
    assert cut.prompt == "Sum: " + "word " * 408 + "word..."  # 2045 characters, back to a whole word, and the dots
    assert len(cut.targets[0]) <= 2048
    whole = render("Sum: {{ text }} ||| {{ text }}", {"text": text}, cut=None)
    assert whole.prompt == "Sum: " + text.strip()
    offered = render("Pick. ||| {{ answer_choices[0] }}", {"text": text}, "{{ text }} ||| no")
    assert offered.targets[0] in offered.choices


def test_a_template_cannot_change_the_row_for_the_next():
    example = {"xs": ["a"]}
    jinja = "{{ xs.append('b') or '' }}{{ xs | join(' ') }} ||| x"
    assert [render(jinja, example).prompt for _ in range(2)] == ["a b", "a b"]
    assert example == {"xs": ["a"]}


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        ("{{ 1 // 0 }} ||| x", "ZeroDivisionError"),
        ("{{ a.b.c }} ||| x", "UndefinedError"),
        ("{{ [] | choice }} ||| x", "IndexError"),
        ("{% for i in range(10**9) %}x{% endfor %} ||| x", "SecurityError"),
        ("{% for i in range(5000) %}{% for j in range(5000) %}{% endfor %}{% endfor %} ||| x", "TooMuch"),
        ("{{ 'x' * 10**9 }} ||| x", "SecurityError"),
        ("{{ 9 ** 9 ** 9 }} ||| x", "SecurityError"),
        ("{{ '%1000000000d' % 1 }} ||| x", "SecurityError"),
        ("{{ 'a'.ljust(10**9) }} ||| x", "TooMuch"),
        ("{{ '{:>1000000000}'.format(1) }} ||| x", "SecurityError"),
        ("{% for i in range(9000) %}{{ 'x' * 900 }}{% endfor %} ||| x", "SecurityError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }} ||| x", "SecurityError"),
        ("{{ headline }} ||| x", "no field 'headline'; the row has a"),
    ],
)
def test_what_cannot_be_rendered_says_why(jinja, message):
    with pytest.raises(InputError, match=message):
        render(jinja, {"a": {}})


def test_a_field_that_a_template_can_do_without_may_be_missing():
    assert render("{{ hint | default('none') }}{% if x is defined %}{{ x }}{% endif %} ||| y", {}).prompt == "none"
    assert render("{% if 1 %}{% set own = 2 %}{% endif %}{{ own }} ||| y", {}).prompt == "2"


def test_a_failing_template_is_reported_with_its_name_and_row_and_the_others_go_on(ag_news):
    yaml = AG_NEWS.replace('["World", "Sports", "Business", "Science"][label]', "1 // (label - 1)")
    (ag_news / "templates.yaml").write_text(yaml)
    problems = Problems()
    assert len(read(ag_news, problems)) == 3
    ((where, message),) = problems.listed
    assert where == f"{ag_news / 'train.jsonl'}:2, template 'write'"
    assert "ZeroDivisionError" in message
    with pytest.raises(InputError, match=r"train\.jsonl:2, template 'write'"):
        read(ag_news, Problems(strict=True))


def test_a_template_that_is_no_jinja_is_reported_once(ag_news):
    (ag_news / "templates.yaml").write_text(AG_NEWS.replace("{{ text }}'", "{{ text '"))
    problems = Problems()
    assert len(read(ag_news, problems)) == 2
    assert problems.listed == [("ag_news", problems.listed[0][1])]
    assert "template 'write' is no Jinja" in problems.listed[0][1]


def test_a_target_outside_the_choices_is_a_problem(ag_news):
    (ag_news / "templates.yaml").write_text(AG_NEWS.replace("{{answer_choices[label]", "{{label"))
    problems = Problems()
    assert {instance.template for instance in read(ag_news, problems)} == {"write"}
    assert "the target '2' is not among the choices" in problems.listed[0][1]


def test_bad_rows_are_reported_by_line(ag_news):
    lines = ["{", json.dumps(ROWS[0]), "[]", json.dumps({"text": "x"}), json.dumps({**ROWS[0], "answer_choices": 1})]
    (ag_news / "train.jsonl").write_text("\n".join(lines))
    problems = Problems()
    assert [instance.group for instance in read(ag_news, problems)] == ["ag_news|train|#2"] * 2
    places = [where.rpartition("train.jsonl:")[2].partition(",")[0] for where, _ in problems.listed]
    assert places == ["1", "3", "4", "4", "5", "5"]
    assert "no field 'label'" in problems.listed[2][1]
    (ag_news / "train.jsonl").write_text("")
    empty = Problems()
    assert read(ag_news, empty) == []
    assert "holds no row" in empty.listed[0][1]


def test_at_most_so_many_of_a_data_set_over_all_its_templates(ag_news):
    rows = [{"text": f"Text {number}.", "label": number % 4} for number in range(300)]
    (ag_news / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read(ag_news)) == 600
    drawn = [instance.id for instance in read(ag_news, max_instances=50)]
    assert len(drawn) == len(set(drawn)) == 50
    assert drawn == [instance.id for instance in read(ag_news, max_instances=50)]
    assert drawn != [instance.id for instance in read(ag_news, max_instances=50, seed=1)]
    assert {identity.split("|")[2] for identity in drawn} == {"classify_question_first", "write"}
    assert max(int(identity.rpartition("#")[2]) for identity in drawn) > 200
    pq.write_table(pa.Table.from_pylist(rows), ag_news / "train.parquet")
    assert drawn == [instance.id for instance in read(ag_news, file="train.parquet", max_instances=50)]


def test_a_folder_of_files_is_one_data_set(ag_news):
    for part in ("a", "b"):
        (ag_news / "data" / part).mkdir(parents=True)
        (ag_news / "data" / part / "0000.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    ids = [instance.id for instance in read(ag_news, file="data", turned_around=False)]
    assert ids == [f"ag_news|{part}/0000|classify_question_first|#1" for part in ("a", "b")]
    assert len(read(ag_news, file="data", max_instances=3)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: !!python/object/apply:os.system [ls]", "can't be read as templates"),
        ("a: !Other {}", "!Other"),
        ("a: [", "can't be read as templates"),
        ("[]", "expected PromptSource's"),
        ("dataset: x\ntemplates: {}", "holds no template"),
        ("dataset: x\ntemplates: {a: !Template {name: n}}", "jinja"),
        ("templates: {a: !Template {name: n, jinja: x}}", "dataset"),
        ("dataset: x\ntemplates: {a: !Template {name: n, jinja: x}, b: !Template {name: n, jinja: y}}", "2 templates"),
    ],
)
def test_files_that_are_no_templates_say_why(tmp_path, content, message):
    (tmp_path / "templates.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        load_templates(tmp_path / "templates.yaml")


def test_templates_are_found_by_the_name_of_the_data_set(tmp_path):
    for name in ("ag_news", "glue/mrpc"):
        (tmp_path / name).mkdir(parents=True)
        dataset, _, subset = name.partition("/")
        content = AG_NEWS.replace("dataset: ag_news", f"dataset: {dataset}" + (f"\nsubset: {subset}" if subset else ""))
        (tmp_path / name / "templates.yaml").write_text(content)
    assert find_templates(tmp_path, "glue/mrpc").task == "glue/mrpc"
    assert find_templates(tmp_path, "nyu-mll/glue/mrpc").task == "glue/mrpc"
    assert find_templates(tmp_path, "fancyzhx/ag_news").task == "ag_news"
    assert find_templates(tmp_path / "glue").task == "glue/mrpc"
    with pytest.raises(InputError, match="no templates of 'glue/qqp'"):
        find_templates(tmp_path, "glue/qqp")
    with pytest.raises(InputError, match="2 data sets"):
        find_templates(tmp_path)


def test_answer_choices_of_2021_were_lists():
    template = Template.model_validate(
        {"name": "n", "jinja": "a ||| {{answer_choices[1]}}", "answer_choices": ["x", 2]}
    )
    assert Renderer(template).render({}, "0").choices == ("x", "2")


def test_options_are_listed_once(ag_news):
    classify, write, *_ = read(ag_news)
    listed = with_options(classify)
    assert listed.instruction == classify.instruction + (
        "\n\nOPTIONS:\n- World politics\n- Sports\n- Business\n- Science and technology"
    )
    assert with_options(listed) == listed
    assert with_options(write) is write


def test_the_reader_is_registered():
    assert READERS["promptsource"] is read_promptsource


def test_files_that_differ_only_in_kind_are_both_read(tmp_path):
    (tmp_path / "t.yaml").write_text(AG_NEWS)
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text('{"text": "One.", "label": 1}\n')
    pq.write_table(pa.table({"text": ["Two."], "label": [2]}), data / "train.parquet")
    (data / "test.jsonl").write_text('{"text": "Three.", "label": 3}\n')
    found = [instance for _, instance in read_promptsource(data, Problems(), templates=tmp_path / "t.yaml")]
    for word in ("One.", "Two.", "Three."):
        assert any(word in instance.instruction for instance in found)
    assert len({instance.id for instance in found}) == len(found)
