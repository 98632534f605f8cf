from __future__ import annotations

import pickle

from cappy_select import MissingExtra, NoCandidates, ProviderError, Usage


def provider_error(**options):
    return ProviderError("told to wait", kind="rate_limit", model="m", retry_after_s=3.0, **options)


def test_errors_survive_a_trip_to_another_process():
    error = pickle.loads(pickle.dumps(provider_error(usage=Usage(prompt_tokens=3), cost=0.5)))
    assert (error.kind, error.model, error.retry_after_s, error.cost) == ("rate_limit", "m", 3.0, 0.5)
    assert str(error) == "m: rate_limit: told to wait"
    group = pickle.loads(pickle.dumps(NoCandidates("none", [provider_error()], usage=Usage(), cost=None)))
    assert [e.kind for e in group.exceptions] == ["rate_limit"]
    assert group.usage == Usage()
    assert "cappy-select[export]" in str(pickle.loads(pickle.dumps(MissingExtra("export", "exporting", "torch"))))


def test_except_star_takes_no_candidates_apart():
    seen = []
    try:
        raise NoCandidates("none", [provider_error()], usage=Usage(), cost=1.0)
    except* ProviderError as group:
        seen += [(e.model, e.kind) for e in group.exceptions]
    assert seen == [("m", "rate_limit")]
