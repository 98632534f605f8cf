"""Public data: T0's training mixture and the 45 BIG-bench tasks, from the hub or from copies of it.

A data set that does not load is reported with its reason, and the others go on: some of them have moved, are
gated, or were loading scripts, which `datasets` runs no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cappy_select.core.errors import InputError, MissingExtra
from cappy_select.data.formats import SUFFIXES, Problems
from cappy_select.data.instances import Instance
from cappy_select.data.readers.bigbench import read_bigbench
from cappy_select.data.readers.prompt_templates import FILE_NAME, load_templates
from cappy_select.data.readers.promptsource import MAX_INSTANCES, read_promptsource
from cappy_select.data.readers.tables import Row, Table

PREFIX = "hub:"
_EXPORT = "refs/convert/parquet"  # where the hub keeps a Parquet copy of what was a script
# The second is what is said of a script when another subset of it is in the cache.
_SCRIPT_SIGNS = ("scripts are no longer supported", "Couldn't find cache for")
_LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


class HubData(NamedTuple):
    """One split of a data set of the hub. `templates` is what PromptSource calls the data set."""

    name: str
    subset: str | None = None
    split: str = "train"
    templates: str | None = None

    def __str__(self) -> str:
        subset = f"/{self.subset}" if self.subset else ""
        return f"{PREFIX}{self.name}{subset}@{self.split}"


def _t0(templates: str, name: str) -> HubData:
    """T0's data set by its PromptSource name, and where it is on the hub now."""
    return HubData(name, templates.partition("/")[2] or None, "train", templates)


T0_BASE: tuple[HubData, ...] = (
    _t0("glue/mrpc", "nyu-mll/glue"),
    _t0("glue/qqp", "nyu-mll/glue"),
    _t0("paws/labeled_final", "google-research-datasets/paws"),
    _t0("kilt_tasks/hotpotqa", "facebook/kilt_tasks"),
    _t0("wiki_qa", "microsoft/wiki_qa"),
    _t0("adversarial_qa/dbert", "UCLNLP/adversarial_qa"),
    _t0("adversarial_qa/dbidaf", "UCLNLP/adversarial_qa"),
    _t0("adversarial_qa/droberta", "UCLNLP/adversarial_qa"),
    _t0("duorc/ParaphraseRC", "ibm-research/duorc"),
    _t0("duorc/SelfRC", "ibm-research/duorc"),
    _t0("ropes", "allenai/ropes"),
    _t0("quoref", "allenai/quoref"),
    _t0("cos_e/v1.11", "Salesforce/cos_e"),
    _t0("cosmos_qa", "allenai/cosmos_qa"),
    _t0("dream", "dataset-org/dream"),
    _t0("qasc", "allenai/qasc"),
    _t0("quail", "textmachinelab/quail"),
    _t0("quarel", "community-datasets/quarel"),
    _t0("quartz", "allenai/quartz"),
    _t0("sciq", "allenai/sciq"),
    _t0("social_i_qa", "allenai/social_i_qa"),
    _t0("wiki_hop/original", "QAngaroo/wiki_hop"),
    _t0("wiqa", "allenai/wiqa"),
    _t0("amazon_polarity", "fancyzhx/amazon_polarity"),
    _t0("app_reviews", "sealuzh/app_reviews"),
    _t0("imdb", "stanfordnlp/imdb"),
    _t0("rotten_tomatoes", "cornell-movie-review-data/rotten_tomatoes"),
    _t0("yelp_review_full", "Yelp/yelp_review_full"),
    _t0("common_gen", "allenai/common_gen"),
    _t0("wiki_bio", "michaelauli/wiki_bio"),
    _t0("cnn_dailymail/3.0.0", "abisee/cnn_dailymail"),
    _t0("gigaword", "Harvard/gigaword"),
    _t0("multi_news", "alexfabbri/multi_news"),
    _t0("samsum", "knkarthick/samsum"),  # Samsung's own was taken down in May 2025: huggingface/datasets#7573
    _t0("xsum", "EdinburghNLP/xsum"),
    _t0("ag_news", "fancyzhx/ag_news"),
    _t0("dbpedia_14", "fancyzhx/dbpedia_14"),
    _t0("trec", "CogComp/trec"),
)
"""The BASE rows of T0's public list (Sanh et al. 2022, bigscience-workshop/t-zero)."""

ZEROSHOT: dict[str, HubData] = {
    "ANLI R1": HubData("facebook/anli", None, "dev_r1", "anli"),
    "ANLI R2": HubData("facebook/anli", None, "dev_r2", "anli"),
    "ANLI R3": HubData("facebook/anli", None, "dev_r3", "anli"),
    "CB": HubData("aps/super_glue", "cb", "validation", "super_glue/cb"),
    "RTE": HubData("aps/super_glue", "rte", "validation", "super_glue/rte"),
    "StoryCloze": HubData("LSDSem/story_cloze", "2016", "validation", "story_cloze/2016"),  # its owners' files by hand
    "WSC": HubData("aps/super_glue", "wsc.fixed", "validation", "super_glue/wsc.fixed"),
    "WiC": HubData("aps/super_glue", "wic", "validation", "super_glue/wic"),
    "Winogrande": HubData("allenai/winogrande", "winogrande_xl", "validation", "winogrande/winogrande_xl"),
    "WinoGender": HubData("aps/super_glue", "axg", "test", "super_glue/axg"),
    "CrowS-Pairs": HubData("nyu-mll/crows_pairs", None, "test", "crows_pairs"),
}
"""The paper's zero-shot tasks by its names, each at the split that T0 was evaluated on."""

_GENERATION_TASKS = (
    "ascii_word_recognition auto_categorization auto_debugging bridging_anaphora_resolution_barqa "
    "chess_state_tracking chinese_remainder_theorem codenames conlang_translation cryptonite disfl_qa few_shot_nlg "
    "gem gender_inclusive_sentences_german hindi_question_answering "
    "international_phonetic_alphabet_transliterate language_games linguistic_mappings linguistics_puzzles "
    "list_functions matrixshapes minute_mysteries_qa modified_arithmetic mult_data_wrangling object_counting "
    "operators paragraph_segmentation parsinlu_reading_comprehension physics_questions polish_sequence_labeling "
    "qa_wikidata repeat_copy_logic rephrase scientific_press_release semantic_parsing_in_context_sparc "
    "semantic_parsing_spider simp_turing_concept simple_arithmetic_json simple_text_editing "
    "sufficient_information tellmewhy tense topical_chat unnatural_in_context_learning word_sorting "
    "word_unscrambling"
)

BIGBENCH_45: tuple[HubData, ...] = tuple(
    HubData("tasksource/bigbench", task, "validation") for task in _GENERATION_TASKS.split()
)
"""The generation tasks of BIG-bench that the paper measures on (Tan et al. 2023, appendix)."""


def parse_hub(text: str) -> HubData:
    """The data of `hub:NAME[/SUBSET][@SPLIT]`; a NAME is `org/name`, an existing path, or as PromptSource has it.

    Raises InputError when it is none.
    """
    bare, _, split = text.removeprefix(PREFIX).partition("@")
    split = split or "train"
    for known in T0_BASE:
        if bare == known.templates:
            return known._replace(split=split)
    if bare and Path(bare).exists():
        return HubData(bare, None, split)
    name, subset = "/".join(bare.split("/")[:2]), "/".join(bare.split("/")[2:])
    if not all(bare.split("/")):
        raise InputError(f"a data set of the hub is written {PREFIX}org/name[/subset][@split], got {text!r}")
    templates = next((known.templates for known in T0_BASE if (known.name, known.subset or "") == (name, subset)), None)
    return HubData(name, subset or None, split, templates)


def load_hub(
    data: HubData, problems: Problems, *, copies: Path | None = None, unreachable: list[HubData] | None = None
) -> Table | None:
    """The rows of a data set, through `datasets`; None, and a problem, when it does not load.

    Args:
        data: Which. Where its name is a file or a folder on this disk, that is read.
        problems: Gets the reason, in one line.
        copies: A folder of copies, each at `org/name` or `org/name/subset`: read instead of the hub. What
            isn't there is a problem, and the hub is not asked.
        unreachable: Gets what failed because the hub can't be reached; when it holds one, the hub is not tried.

    Raises MissingExtra without `datasets`.
    """
    if copies is not None:
        data = data._replace(name=str(copies / data.name))
        if not Path(data.name).exists():
            problems.report(str(data), "no copy of it there")
            return None
    elif unreachable:
        problems.report(str(data), f"not tried: the hub can't be reached, see {unreachable[0]}")
        return None
    try:
        rows = _loaded(data)
    except MissingExtra:
        raise
    except Exception as error:  # `datasets` passes on what its readers and the network raise, of changing kinds
        if isinstance(error, ConnectionError) and unreachable is not None:
            unreachable.append(data)
        problems.report(str(data), f"does not load: {_line(error)}")
        return None
    return Table(
        name=f"{Path(data.name).name}/{data.subset}" if data.subset else Path(data.name).name,
        split=data.split,
        count=lambda: len(rows),
        rows=lambda problems: _rows(rows, data),
    )


def read_t0(
    templates: str | Path,
    problems: Problems,
    *,
    copies: Path | None = None,
    max_instances: int = MAX_INSTANCES,
    left_out: Counter[str] | None = None,
    **options: Any,
) -> Iterator[tuple[str, Instance]]:
    """(place, instance) of T0's training mixture, at most `max_instances` of each data set.

    Args:
        templates: PromptSource's folder `templates`.
        problems: Gets the data sets that don't load, and all that `read_promptsource` reports.
        copies: See `load_hub`.
        max_instances: See `read_promptsource`.
        left_out: See `read_promptsource`.
        options: For `read_promptsource`.

    Raises InputError when there is no such folder, MissingExtra without `datasets`.
    """
    if not Path(templates).is_dir():
        raise InputError(f"T0 needs the folder `templates` of PromptSource, with all its data sets; got {templates}")
    unreachable: list[HubData] = []
    for data in T0_BASE:
        try:
            rendered_by = load_templates(Path(templates) / str(data.templates) / FILE_NAME)
        except InputError as error:
            problems.report(str(data), str(error))
            continue
        table = load_hub(data, problems, copies=copies, unreachable=unreachable)
        if table is not None:
            yield from read_promptsource(
                table, problems, templates=rendered_by, max_instances=max_instances, left_out=left_out, **options
            )


def read_bigbench45(problems: Problems, *, copies: Path | None = None) -> Iterator[tuple[str, Instance]]:
    """(place, instance) of the 45 BIG-bench tasks; `copies` as in `load_hub`.

    Raises MissingExtra without `datasets`.
    """
    unreachable: list[HubData] = []
    for data in BIGBENCH_45:
        table = load_hub(data, problems, copies=copies, unreachable=unreachable)
        if table is not None:
            yield from read_bigbench(table, problems, task=data.subset)


def _loaded(data: HubData) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("data", "data sets of the hub", "datasets") from error
    path = Path(data.name)
    if path.is_file():
        suffix = next((kind for kind in SUFFIXES if path.name.lower().removesuffix(".gz").endswith(kind)), None)
        if suffix is None:
            raise InputError(f"what kind of file {path} is must show in its name: {', '.join(SUFFIXES)}")
        more = {"delimiter": "\t"} if suffix == ".tsv" else {}
        return datasets.load_dataset(_LOADERS[suffix], data_files={data.split: str(path)}, split=data.split, **more)
    if path.is_dir():
        own = data.subset is not None and (path / data.subset).is_dir()
        folder, subset = (path / str(data.subset), None) if own else (path, data.subset)
        return datasets.load_dataset(str(folder), subset, split=data.split)
    try:
        return datasets.load_dataset(data.name, data.subset, split=data.split)
    except (RuntimeError, ValueError) as error:
        if not any(sign in str(error) for sign in _SCRIPT_SIGNS):
            raise
        try:  # there a subset is a folder, not a configuration
            return datasets.load_dataset(data.name, data_dir=data.subset, split=data.split, revision=_EXPORT)
        except Exception as second:
            raise RuntimeError(f"only a loading script, and its Parquet copy fails too: {_line(second)}") from second


def _rows(rows: Any, data: HubData) -> Iterator[Row]:
    for number, values in enumerate(rows, 1):
        yield Row(f"{data}:{number}", data.split, number, values)


def _line(error: BaseException) -> str:
    cause = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    if "generating the dataset" in text and cause is not None:  # `datasets` hides the reason in the cause
        text = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    return text[:300]
