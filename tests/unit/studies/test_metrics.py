import pytest

from kernels.errors import NasError, UnknownNameError
from studies.metrics import METRICS, parse_metric, parse_objective


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("accuracy", "accuracy"),
        (" latency_ms ", "latency_ms"),
        ("latency_ms[batch=1]", "latency_ms"),
        ("latency_ms[ batch = 256 ]", "latency_ms[batch=256]"),
    ],
)
def test_a_metric_has_one_canonical_name_that_reads_back(text, canonical):
    metric = parse_metric(text)
    assert str(metric) == canonical
    assert parse_metric(canonical) == metric


def test_qualifiers_have_defaults():
    assert parse_metric("latency_ms").qualifier("batch") == 1
    assert parse_metric("latency_ms[batch=8]").qualifier("batch") == 8


def test_unknown_names_come_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'latency_ms'"):
        parse_metric("latncy_ms")
    with pytest.raises(UnknownNameError, match="Did you mean 'batch'"):
        parse_metric("latency_ms[batc=3]")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latency_ms[",
        "latency_ms[]",
        "latency_ms[batch=0]",
        "latency_ms[batch=two]",
        "latency_ms[batch=2,batch=3]",
        "params[batch=2]",
        "latency_ms[batch=2]x",
    ],
)
def test_what_breaks_the_grammar_is_refused(text):
    with pytest.raises(NasError):
        parse_metric(text)


def test_directions_follow_the_metric():
    assert parse_objective("accuracy").direction == "max"
    assert parse_objective("latency_ms[batch=4]").direction == "min"


def test_the_test_split_cannot_be_searched_for():
    with pytest.raises(NasError, match="validation"):
        parse_objective("test_accuracy")


def test_every_name_fits_the_grammar():
    assert [str(parse_metric(name)) for name in METRICS] == list(METRICS)
