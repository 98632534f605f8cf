"""YAML of others is plain values of bounded size."""

import pytest
import yaml

from cappy_select.core.errors import InputError
from cappy_select.core.yaml_files import AliasLoader, PlainLoader, read_yaml
from cappy_select.data.readers.prompt_templates import load_templates

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


def written(folder, text):
    (folder / "templates.yaml").write_text(text)
    return folder / "templates.yaml"


def test_templates_have_no_aliases(tmp_path):
    file = written(tmp_path, "dataset: d\ntemplates:\n  a: &t !Template {name: a, jinja: 'x ||| y'}\n  b: *t\n")
    with pytest.raises(InputError, match="aliases"):
        load_templates(file)


@pytest.mark.parametrize("text", [LAUGHS, MERGES, "a: &a [*a]\n"])
@pytest.mark.parametrize("loader", [PlainLoader, AliasLoader])
def test_a_few_lines_do_not_become_billions_of_values(tmp_path, text, loader):
    with pytest.raises(yaml.YAMLError, match=r"aliases|more than|deeper"):
        read_yaml(written(tmp_path, text), loader)


def test_the_owner_s_own_file_may_use_aliases(tmp_path):
    file = written(tmp_path, "base: &base {a: 1}\nother: {<<: *base, b: *base}\n")
    assert read_yaml(file, AliasLoader) == {"base": {"a": 1}, "other": {"a": 1, "b": {"a": 1}}}


@pytest.mark.parametrize("text", ["[" * 200 + "]" * 200, "# " + "x" * 6_000_000])
def test_a_file_too_deep_or_too_large_is_refused(tmp_path, text):
    with pytest.raises(yaml.YAMLError, match=r"deeper|larger"):
        read_yaml(written(tmp_path, text), PlainLoader)
    with pytest.raises(InputError, match="can't be read as templates"):
        load_templates(tmp_path / "templates.yaml")
