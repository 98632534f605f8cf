"""What templates of others may do: as much as templates need, and no more."""

import pytest

from cappy_select.core.errors import InputError
from cappy_select.data.readers.prompt_templates import Template
from cappy_select.data.readers.rendering import Renderer

HUGE = 700_000_000
DOUBLING = "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = BODY %}{% endfor %}{{ n.x|length }}"


def rendered(jinja: str, **example):
    return Renderer(Template(name="t", jinja=f"{jinja} ||| target")).render(example or {"n": 5, "text": "a b"}, "0")


@pytest.mark.parametrize(
    "jinja",
    [
        f"{{{{ text|center({HUGE})|length }}}}",
        f"{{{{ text|indent({HUGE}, true)|length }}}}",
        f"{{{{ text|indent(width='{'x' * 1000}', first=true)|length }}}}{{{{ text.rjust({HUGE})|length }}}}",
        f"{{{{ [[1]]|tojson(indent={HUGE})|length }}}}",
        f"{{{{ [1]|batch({HUGE}, 0)|list|length }}}}",
        f"{{{{ text|slice({HUGE})|list|length }}}}",
        f"{{{{ text.zfill({HUGE})|length }}}}",
        "{{ ('\t' * 100000).expandtabs(100000)|length }}",
        f"{{{{ text.encode().center({HUGE})|length }}}}",
        f"{{{{ n.to_bytes(length={HUGE}, byteorder='big')|length }}}}",
        f"{{{{ '{{:>{HUGE}}}'.format(text)|length }}}}",
        f"{{{{ '{{:{{}}}}'.format(text, '{HUGE}')|length }}}}",
        f"{{{{ ('%{HUGE}d' % n)|length }}}}",
        f"{{{{ ('%.*f' % ({HUGE}, n))|length }}}}",
        f"{{{{ ('%{HUGE}s'.encode() % 'a'.encode())|length }}}}",
        f"{{{{ '%{HUGE}s'|format(text)|length }}}}",
        "{% set x = 'a' * 900000 %}{{ ('%(x)s' * 90000 % {'x': x})|length }}",
        "{% set x = 'a' * 900000 %}{{ ('{0}' * 90000).format(x)|length }}",
        "{% set x = 'a' * 900000 %}{{ x.replace('a', x)|length }}",
        "{% set x = 'a' * 900000 %}{{ x|replace('', x)|length }}",
        "{% set x = 'a' * 900000 %}{{ x.join([1, 2]|map('string')|list * 90000)|length }}",
        "{% set x = 'a' * 900000 %}{{ ([x] * 900000)|join|length }}",
        "{% set x = 'a' * 900000 %}{{ x.translate({97: x})|length }}",
        "{{ ([[1] * 1000] * 900)|sum(start=[])|length }}",
        "{{ 1.5|round(999999999, 'ceil') }}",
        DOUBLING.replace("BODY", "n.x ~ n.x"),
        DOUBLING.replace("BODY", "n.x + n.x"),
        DOUBLING.replace("BODY", "[n.x, n.x]|join"),
        DOUBLING.replace("BODY", "'%s%s' % (n.x, n.x)"),
        DOUBLING.replace("BODY", "[n.x, n.x]") + "{{ n.x }}",
        "{% set l = [1, 2] %}{% for i in range(60) %}{{ l.extend(l) or '' }}{% endfor %}",
    ],
)
def test_a_width_or_a_product_beyond_all_bounds_is_refused(jinja):
    with pytest.raises(InputError, match=r"SecurityError|TooMuch"):
        rendered(jinja)


@pytest.mark.parametrize(
    "jinja",
    [
        "{% for a in range(9000) %}{% for b in text %}{% endfor %}{% endfor %}",
        "{% set r = range(9000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
        "{% for a in [1] recursive %}{{ loop([1, 1] * 400000) }}{% endfor %}",
        "{% macro m(d) %}{% if d %}{{ m(d - 1) }}{{ m(d - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% set r = range(900000) %}{% for a in r %}{% if 'zz' in r %}{% endif %}{% endfor %}",
        "{% set x = 'a' * 900000 %}{% for a in range(9000) %}{% if x ~ 'b' == x %}{% endif %}{% endfor %}",
        "{% set x = 'a' * 900000 %}{% for a in range(9000) %}{% set y = x[1:] %}{% endfor %}",
        "{% set x = 'a' * 900000 %}{{ x.strip('b' * 900000 ~ 'a') }}",
        "{% set x = 'a' * 900000 %}{% for a in range(9000) %}{% set y = x|upper %}{% endfor %}",
        "{% set r = range(9000)|list %}{{ r|select('in', r)|list|length }}",
        "{% set _rendering = namespace(items_left=9e99) %}{% for a in range(9000000) %}{% endfor %}",
        "{{ ('a' * 900000).encode().decode('punycode')|length }}",
    ],
)
def test_work_without_end_ends(jinja):
    with pytest.raises(InputError, match=r"SecurityError|TooMuch"):
        rendered(jinja, text="word " * 2000, n=5)


@pytest.mark.parametrize("jinja", ["{{ " + "(" * 400 + "1" + ")" * 400 + " }}", "{{ " + "9" * 9000 + " }}"])
def test_a_template_that_python_cannot_compile_is_no_defect(jinja):
    with pytest.raises(InputError, match=r"no Jinja|Error"):
        rendered(jinja)


@pytest.mark.parametrize(
    ("jinja", "prompt"),
    [
        ("Call {{ text.strip() }}!", "Call 5551234567!"),
        ("{{ '%s of %d' % (text, n) }}", "5551234567 of 12345678"),
        ("{{ '{:,} at {}'.format(n, text) }}", "12,345,678 at 5551234567"),
        ("{{ text|replace('555', '5') }} {{ 'a'|center(3) }}|", "51234567  a |"),
        ("{{ ['a', 'b']|join(', ') }}{% for x in 'ab' %}{{ loop.length }}{{ loop.last }}{% endfor %}",
         "a, b2False2True"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{{ 'a' ~ n ~ [1] }}", "<1>a12345678[1]"),
        ("{% for x in [[1, [2]], 3] recursive %}{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}"
         "{% endfor %}", "123"),
        ("{{ {'b': 1, 'a': [1]}|tojson }} {{ 'abc'[1:] }} {{ 'a' in 'abc' }}", '{"a": [1], "b": 1} bc True'),
        ("{{ [3, 1]|sort|first }}{{ [1, 2]|sum }}{{ [1, 2]|map('string')|join('-') }}{{ missing|default('d') }}",
         "131-2d"),
        ("{% for x in nothing %}x{% else %}none{% endfor %}{% set y %}a{{ n }}{% endset %}{{ y|upper }}",
         "noneA12345678"),
    ],
)  # fmt: skip
def test_what_templates_need_works_as_in_any_jinja(jinja, prompt):
    found = rendered(jinja, text="5551234567", n=12345678, nothing=[])
    assert found is not None
    assert found.prompt == prompt


def test_a_long_row_may_be_rendered_many_times_over():
    found = rendered(
        "{% for part in text.split('.') %}{{ part.strip()|upper|length }}{% endfor %}", text="ab. " * 60_000
    )
    assert found is not None
    assert found.prompt.startswith("222")


def test_a_template_that_does_too_much_again_and_again_is_no_longer_tried():
    renderer = Renderer(
        Template(name="t", jinja="{% for a in text %}{% for b in text %}{% endfor %}{% endfor %} ||| x")
    )
    said = []
    for row in range(5):
        with pytest.raises(InputError) as caught:
            renderer.render({"text": "a" * 90_000}, str(row))
        said.append("not rendered" in str(caught.value))
    assert said == [False, False, False, True, True]
