"""The IRMA error: published examples, a computation position by position, its laws, and brute force over truncations."""

import itertools
import json
import math

import numpy
import pytest
from hypothesis import given, strategies

from severity.core.errors import SeverityError
from severity.decisions import class_rules
from severity.irma import codes as irma_codes
from severity.tree import costs
from tests.trees import flat

ANSWERS = ["318a", "318*", "3187", "31*a", "31**", "3177", "3***", "32**", "1000"]
# Deselaers et al., ImageCLEF 2007: the errors of these answers where 318a is true.
FIXTURES = {
    (10, 3, 9, 16): [0, 0.024, 0.049, 0.082, 0.082, 0.165, 0.343, 0.687, 1],
    (2, 2, 2, 2): [0, 0.060, 0.120, 0.140, 0.140, 0.280, 0.260, 0.520, 1],
}
CODES = [
    "1121-120-200-700",
    "1121-127-200-700",
    "1121-127-310-700",
    "1122-127-31a-500",
    "1210-4b0-31b-500",
    "2000-4b1-460-51a",
]
SCHEME = irma_codes.Scheme.from_codes(CODES)


def reference(answer: str, truth: str, branching) -> float:
    """Position by position: an automaton that is right until it is silent or wrong, and then stays so."""
    above = below = 0.0
    state = "right"
    for place, (said, true, factor) in enumerate(zip(answer, truth, branching, strict=True), start=1):
        weight = 1 / factor / place
        below += weight
        if state == "right" and said != true:
            state = "silent" if said == "*" else "wrong"
        if state == "wrong":
            above += weight
        elif state == "silent" and not (said == "*" and true == "0"):
            above += weight / 2
    return above / below


def paths(length: int, alphabet: str = "0123ab") -> strategies.SearchStrategy[str]:
    """True paths: characters, then 0 to the end."""
    digits = strategies.text(alphabet=alphabet.replace("0", ""), max_size=length)
    return digits.map(lambda text: text.ljust(length, "0"))


def answers(length: int, alphabet: str = "123ab*") -> strategies.SearchStrategy[str]:
    return strategies.text(alphabet=alphabet, max_size=length).map(lambda text: text.ljust(length, "0"))


FACTORS = strategies.lists(strategies.integers(1, 12), min_size=4, max_size=4)


class TestOneAxis:
    @pytest.mark.parametrize("branching", FIXTURES)
    def test_the_published_examples_to_their_digits(self, branching):
        found = [round(irma_codes.axis_error(answer, "318a", branching), 3) for answer in ANSWERS]
        assert found == FIXTURES[branching]

    def test_a_constant_branching_factor_cancels(self):
        for answer in ANSWERS:
            first, second = (irma_codes.axis_error(answer, "318a", [factor] * 4) for factor in (2, 7))
            assert first == pytest.approx(second)

    @given(strategies.text("0123ab*", min_size=4, max_size=4), paths(4), FACTORS)
    def test_against_a_computation_position_by_position(self, answer, truth, branching):
        assert irma_codes.axis_error(answer, truth, branching) == pytest.approx(reference(answer, truth, branching))

    @given(answers(4), paths(4), FACTORS)
    def test_bounds_and_only_right_answers_cost_nothing(self, answer, truth, branching):
        error = irma_codes.axis_error(answer, truth, branching)
        assert 0 <= error <= 1 + 1e-12
        assert irma_codes.axis_error(truth, truth, branching) == 0
        specified = len(truth.rstrip("0"))
        if answer[:specified] != truth[:specified]:
            assert error > 0

    @given(paths(4).filter(lambda truth: truth[0] != "0"), FACTORS)
    def test_wrong_at_the_first_position_is_wrong_altogether(self, truth, branching):
        for rest in (truth[1:], "***", "000"):
            assert irma_codes.axis_error("z" + rest, truth, branching) == pytest.approx(1)
        assert irma_codes.axis_error("****", truth, branching) <= 0.5 + 1e-12

    @given(strategies.text("123ab", min_size=4, max_size=4), FACTORS, strategies.integers(0, 3))
    def test_silence_lies_between_right_and_wrong(self, truth, branching, place):
        head, tail = truth[:place], truth[place + 1 :]
        right, unsaid, wrong = (
            irma_codes.axis_error(head + character + tail, truth, branching) for character in (truth[place], "*", "z")
        )
        assert right < unsaid < wrong
        assert unsaid == pytest.approx(wrong / 2)

    @given(strategies.text("123ab", min_size=4, max_size=4), FACTORS)
    def test_the_earlier_the_first_fault_the_larger_the_error(self, truth, branching):
        for fault in "z*":
            errors = [
                irma_codes.axis_error(truth[:place] + fault * (4 - place), truth, branching) for place in range(5)
            ]
            assert (numpy.diff(errors) < 0).all()

    def test_what_follows_a_fault_changes_nothing(self):
        branching = (10, 3, 9, 16)
        for first in ("31*", "317"):
            assert len({irma_codes.axis_error(first + last, "318a", branching) for last in "a7*0"}) == 1

    def test_where_the_path_ends_silence_is_right_and_going_on_is_wrong_to_the_last_position(self):
        branching = (4, 3, 5, 1)
        whole = 1 / 4 + 1 / 6 + 1 / 15 + 1 / 4
        assert irma_codes.axis_error("31**", "3100", branching) == irma_codes.axis_error("310*", "3100", branching) == 0
        assert irma_codes.axis_error("3180", "3100", branching) == pytest.approx((1 / 15 + 1 / 4) / whole)
        assert irma_codes.axis_error("3100", "3180", branching) == irma_codes.axis_error("3170", "3180", branching)

    def test_silence_costs_half_only_where_there_was_something_to_say(self):
        branching = (4, 3, 5, 1)
        whole = 1 / 4 + 1 / 6 + 1 / 15 + 1 / 4
        assert irma_codes.axis_error("3***", "3100", branching) == pytest.approx((1 / 6) / 2 / whole)
        assert irma_codes.axis_error("****", "3100", branching) == pytest.approx((1 / 4 + 1 / 6) / 2 / whole)
        # What is said after a star no longer counts as silence.
        assert irma_codes.axis_error("3*00", "3100", branching) == pytest.approx((1 / 6 + 1 / 15 + 1 / 4) / 2 / whole)
        assert irma_codes.axis_error("31*7", "3100", branching) == pytest.approx((1 / 4) / 2 / whole)

    def test_an_easy_position_weighs_more_than_a_hard_one(self):
        assert irma_codes.axis_error("31", "32", (5, 2)) > irma_codes.axis_error("31", "32", (5, 9))

    def test_wrong_arguments_are_refused(self):
        with pytest.raises(SeverityError, match="differ in length"):
            irma_codes.axis_error("31", "318a", (1, 2, 3, 4))
        with pytest.raises(SeverityError, match="below 1"):
            irma_codes.axis_error("318a", "318a", (1, 2, 0, 4))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("1121-127-700", "has 3 axes; it must have 4, as in TTTT-DDD-AAA-BBB"),
        ("112-127-700-500", "technical axis '112': it has 3 characters and must have 4"),
        ("1121-1270-700-500", "directional axis '1270': it has 4 characters and must have 3"),
        ("1121-12A-700-500", "directional axis '12A': the character 'A' is not one of"),
        ("1121-127-7*0-500", "belongs in answers, not in the truth"),
        ("1121-127-704-500", "anatomical axis '704': a character follows '0'"),
    ],
)
def test_a_malformed_code_is_refused_with_axis_and_mend(code, told):
    with pytest.raises(SeverityError, match=told.replace("*", r"\*")):
        irma_codes.parse(code)


def test_a_code_is_taken_apart():
    assert irma_codes.parse("1121-4b0-31a-700") == ("1121", "4b0", "31a", "700")
    assert irma_codes.parse("112*-***-31a-7*0", answer=True) == ("112*", "***", "31a", "7*0")
    assert irma_codes.parse("C-Cxx-31a-700") == ("C000", "C00", "31a", "700")
    assert irma_codes.parse("C") == ("C000", "C00", "C00", "C00")
    assert irma_codes.parse("31a", ["anatomical"]) == ("31a",)
    with pytest.raises(SeverityError, match="'31a-700' has 2 axes; it must have 1, as in AAA"):
        irma_codes.parse("31a-700", ["anatomical"])


def test_the_axes_that_a_word_names():
    assert irma_codes.axes_of("all") == ("technical", "directional", "anatomical", "biological")
    assert irma_codes.axes_of("anatomical") == ("anatomical",)
    with pytest.raises(SeverityError, match="'anatomic' is not an axis of the IRMA code. Did you mean 'anatomical'"):
        irma_codes.axes_of("anatomic")


class TestScheme:
    def test_branching_factors_count_the_known_characters_along_the_true_path(self):
        # Technical: 1 or 2; then 1 or 2; then 2; then 1 or 2.
        assert SCHEME.branching("technical", "1121") == [2, 2, 1, 2]
        # Directional 4b: the path may end there or go on with 1.
        assert SCHEME.branching("directional", "4b0") == [2, 1, 2]
        assert SCHEME.branching("anatomical", "31a") == [3, 1, 3]
        # Behind the end of a path, and of what is known, there is nothing to choose; the true character always counts.
        assert SCHEME.branching("technical", "2000") == [2, 1, 1, 1]
        assert SCHEME.branching("anatomical", "39c") == [3, 2, 1]
        assert SCHEME.branching("anatomical", "910") == [4, 1, 1]

    def test_code_tables_give_the_same_as_codes_that_cover_them(self):
        tables = {
            name: sorted({axis[:end] for axis in axes for end in range(1, len(axis) + 1)})
            for name, axes in _axes(CODES).items()
        }
        made = irma_codes.Scheme.from_tables(tables)
        assert (made.cost(CODES) == SCHEME.cost(CODES)).all()

    def test_a_truth_that_leaves_what_is_known_is_scored_all_the_same(self):
        unknown = "1121-120-910-700"
        assert SCHEME.errors([unknown], [unknown]) == 0
        assert SCHEME.errors(["1121-120-200-700"], [unknown]) == pytest.approx(1 / 4)
        assert SCHEME.errors(["1121-120-9**-700"], [unknown]) == pytest.approx(reference("9**", "910", (4, 1, 1)) / 4)

    def test_wrong_codes_and_tables_are_refused(self):
        with pytest.raises(SeverityError, match="No IRMA code"):
            irma_codes.Scheme.from_codes([])
        with pytest.raises(SeverityError, match="'tecnical' is not an axis of the IRMA code. Did you mean 'technical'"):
            irma_codes.Scheme.from_tables({"tecnical": ["1"]})
        with pytest.raises(SeverityError, match="directional code table holds '12345'"):
            irma_codes.Scheme.from_tables({"technical": ["1"], "directional": ["12345"]})
        with pytest.raises(SeverityError, match="biological code table is empty"):
            irma_codes.Scheme.from_tables({"technical": ["1"], "biological": []})

    def test_a_scheme_comes_back_from_json(self):
        content = json.loads(json.dumps(SCHEME.to_json()))
        assert irma_codes.Scheme.from_json(content).following == SCHEME.following
        assert content["anatomical"]["31"] == "0ab"

    def test_one_axis_alone_is_that_axis_of_the_whole(self):
        truths = [CODES[index] for index in (0, 2, 3, 5)]
        answers = ["1121-1*0-200-7**", CODES[3], CODES[4], CODES[0]]
        whole = SCHEME.axis_errors(answers, truths)
        for column, axis in enumerate(irma_codes.AXES):
            alone = irma_codes.Scheme.from_codes(_axes(CODES)[axis], [axis])
            found = alone.errors(_axes(answers)[axis], _axes(truths)[axis])
            assert found == pytest.approx(whole[:, column])
        assert SCHEME.errors(answers, truths) == pytest.approx(whole.mean(axis=1))

    def test_an_image_is_the_mean_of_its_axes_and_a_run_the_sum_of_its_images(self):
        answer, truth = "112*-127-310-500", "1121-127-31a-700"
        axes = [
            reference(said, true, SCHEME.branching(axis, true))
            for axis, said, true in zip(irma_codes.AXES, answer.split("-"), truth.split("-"), strict=True)
        ]
        assert axes[1] == 0 and axes[3] == 1 and 0 < axes[0] < 0.5
        errors = SCHEME.errors([answer, truth, answer], [truth] * 3)
        assert errors == pytest.approx([sum(axes) / 4, 0, sum(axes) / 4])
        assert SCHEME.score([answer, truth, answer], [truth] * 3) == pytest.approx(sum(axes) / 2)

    def test_a_clutter_axis_costs_nothing_and_the_others_keep_their_quarter(self):
        whole, part = SCHEME.errors(["2000-127-31a-700"] * 2, ["1121-127-31a-500", "1121-127-31a-C"])
        assert whole == pytest.approx(2 / 4) and part == pytest.approx(1 / 4)
        assert SCHEME.errors(["2000-127-31a-500"], ["C-C-C-C"]) == SCHEME.errors(["2000-127-31a-500"], ["C"]) == 0
        errors = SCHEME.axis_errors(["2000-127-31a-700"] * 2, ["1121-127-31a-500", "1121-127-31a-C"])
        assert numpy.isnan(errors).tolist() == [[False] * 4, [False] * 3 + [True]]
        # To claim clutter where there is something to see is a mistake like any other.
        assert SCHEME.errors(["1121-127-31a-C"], ["1121-127-31a-500"]) == pytest.approx(1 / 4)

    def test_numbers_of_answers_and_truths_must_agree(self):
        with pytest.raises(SeverityError, match="2 answers for 1 true"):
            SCHEME.errors(CODES[:2], CODES[:1])


class TestCost:
    def test_it_is_a_cost_matrix_of_decisions_and_truths(self):
        cost = SCHEME.cost(CODES)
        costs.check(cost, CODES, where="irma")
        for row, answer in enumerate(CODES):
            for column, truth in enumerate(CODES):
                assert cost[row, column] == pytest.approx(SCHEME.errors([answer], [truth])[0])
        assert (cost[~numpy.eye(len(CODES), dtype=bool)] > 0).all() and cost.max() <= 1
        assert not numpy.allclose(cost, cost.T)

    def test_crm_then_picks_the_code_of_least_expected_score(self):
        cost = SCHEME.cost(CODES)
        posterior = numpy.random.default_rng(0).dirichlet(numpy.full(len(CODES), 0.5), 30)
        ranking = class_rules.rank("crm", posterior=posterior, cost=cost, hierarchy=flat(len(CODES)))
        for p, order in zip(posterior, ranking, strict=True):
            expected = [sum(p[j] * SCHEME.errors([code], [CODES[j]])[0] for j in range(len(CODES))) for code in CODES]
            assert expected[order[0]] == pytest.approx(min(expected))

    def test_a_code_twice_is_refused(self):
        with pytest.raises(SeverityError, match="is duplicated"):
            SCHEME.cost([CODES[0], CODES[0]])


class TestTruncation:
    def test_against_every_answer_there_is(self):
        posteriors = numpy.random.default_rng(1).dirichlet(numpy.full(len(CODES), 0.6), 12)
        answers, expected = irma_codes.truncate(posteriors, CODES, SCHEME)
        axes = _axes(CODES)
        for p, answer, claimed in zip(posteriors, answers, expected, strict=True):
            total = 0.0
            for axis, truths in axes.items():
                alphabet = sorted({character for text in truths for character in text} | set("*z"))
                branching = [SCHEME.branching(axis, truth) for truth in truths]
                best = min(
                    math.fsum(p[j] * reference("".join(said), truths[j], branching[j]) for j in range(len(CODES)))
                    for said in itertools.product(alphabet, repeat=len(truths[0]))
                )
                total += best / 4
            assert claimed == pytest.approx(total)
            really = math.fsum(p[j] * SCHEME.errors([answer], [CODES[j]])[0] for j in range(len(CODES)))
            assert really == pytest.approx(claimed)

    def test_it_is_never_worse_than_the_best_whole_code(self):
        posteriors = numpy.random.default_rng(2).dirichlet(numpy.full(len(CODES), 0.6), 50)
        _, expected = irma_codes.truncate(posteriors, CODES, SCHEME)
        whole = (posteriors @ SCHEME.cost(CODES).T).min(axis=1)
        assert (expected <= whole + 1e-12).all() and (expected < whole - 1e-3).any()

    def test_certainty_gives_the_code_and_doubt_stops_where_it_begins(self):
        answers, expected = irma_codes.truncate(numpy.eye(len(CODES)), CODES, SCHEME)
        assert answers == CODES and (expected == 0).all()
        codes = ["1121-120-111-700", "1121-120-112-700", "1121-120-113-700"]
        answers, _ = irma_codes.truncate(numpy.full((1, 3), 1 / 3), codes, irma_codes.Scheme.from_codes(codes))
        assert answers == ["1121-120-11*-700"]

    def test_a_clutter_axis_has_no_say(self):
        codes = ["1121-120-111-C", "1121-120-111-700"]
        scheme = irma_codes.Scheme.from_codes(codes)
        answers, expected = irma_codes.truncate(numpy.array([[0.9, 0.1]]), codes, scheme)
        assert answers == ["1121-120-111-700"] and expected[0] == 0

    def test_rows_that_are_no_distribution_are_refused(self):
        with pytest.raises(SeverityError, match="no distribution"):
            irma_codes.truncate(numpy.ones((1, len(CODES))), CODES, SCHEME)


def _axes(codes: list[str]) -> dict[str, list[str]]:
    axes = zip(*(code.split("-") for code in codes), strict=True)
    return {name: list(axis) for name, axis in zip(irma_codes.AXES, axes, strict=True)}
