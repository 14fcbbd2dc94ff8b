"""Terms of a fit that a user has written, and what is said of those that are none."""

from dataclasses import dataclass, replace

import pytest
import torch
from test_fit import SMALL, Painted, ball
from torch import Tensor

from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import WEIGHTS, Recipe
from warpdvr.fitting.terms import TermContext


@dataclass(frozen=True)
class Volume:
    """The ball's volume, whose derivative is its area."""

    weight: float
    name: str = "volume"

    def __call__(self, context: TermContext) -> tuple[Tensor, int]:
        radius = context.field.radius
        assert isinstance(radius, Tensor)
        return 4 / 3 * torch.pi * radius**3, 0


@dataclass(frozen=True)
class Centre:
    """|value| at the origin, asked twice over."""

    weight: float = 1.0
    name: str = "centre"

    def __call__(self, context: TermContext) -> tuple[Tensor, int]:
        x = torch.zeros(2, 3, device=context.field.bounds.device)
        return context.field.value(x).abs().mean(), len(x)


def test_a_term_of_ones_own_is_reported_weighed_and_learnt_from(device):
    recipe = replace(SMALL, rate=1e-3, color=1e-6, mask=0.0, eikonal=0.0, smooth=0.0)
    for weight, direction in ((2.0, -1.0), (0.0, 0.0)):
        field = Painted(0.5).to(device)
        step = next(Fit(field, ball(), iterations=10, recipe=recipe, terms=[Volume(weight)]))
        if not weight:
            assert "volume" not in step.losses
            continue
        assert step.losses["volume"] == pytest.approx(torch.pi / 6, rel=1e-6)
        assert step.losses["total"] == pytest.approx(2 * torch.pi / 6 + 1e-6 * step.losses["color"], rel=1e-6)
        assert (float(field.radius.detach()) - 0.5) * direction > 0


def test_gradients_of_own_terms_are_weighed():
    """Adam forgets how long a gradient is, so it is looked at before; it is too short to be scaled down."""
    found = []
    for weight in (0.01, 0.03):
        field = Painted(0.5)
        recipe = replace(SMALL, color=1e-9, mask=0.0, eikonal=0.0, smooth=0.0)
        next(Fit(field, ball(), iterations=10, recipe=recipe, terms=[Volume(weight)]))
        assert field.radius.grad is not None
        found.append(float(field.radius.grad))
    assert found == pytest.approx([0.01 * torch.pi, 0.03 * torch.pi], rel=1e-4)  # a ball of radius 1/2 has area pi


def test_questions_of_own_terms_are_counted():
    counts = []
    for terms in ([], [Centre()]):
        job = Fit(Painted(), ball(), iterations=3, recipe=SMALL, terms=terms)
        counts.append(next(job).evaluations)
    assert counts[1] - counts[0] == 2


@pytest.mark.parametrize("name", [*WEIGHTS, "background_color", "prior", "total"])
def test_a_name_that_is_in_use_is_refused(name):
    recipe = replace(SMALL, learn_background=True)
    with pytest.raises(ValueError, match=f"^fit: there is more than one term named '{name}'; give yours another name$"):
        Fit(Painted(), ball(), iterations=1, recipe=recipe, terms=[Volume(1.0, name)])


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match="more than one term named 'volume'"):
        Fit(Painted(), ball(), iterations=1, terms=[Volume(1.0), Volume(2.0)])


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_of_own_terms_must_make_sense(weight):
    with pytest.raises(ValueError, match=r"^fit: the weight of the term 'volume' must be finite and not negative, got"):
        Fit(Painted(), ball(), iterations=1, terms=[Volume(weight)])


def test_what_is_no_term_is_refused():
    class Weightless:
        name = "none"

        def __call__(self, context):
            return torch.tensor(0.0), 0

    with pytest.raises(ValueError, match=r"but Weightless has no weight$"):
        Fit(Painted(), ball(), iterations=1, terms=[Weightless()])


def test_a_term_that_is_no_scalar_is_named():
    class Long(Centre):
        def __call__(self, context):
            return context.field.value(torch.zeros(2, 3)), 2

    with pytest.raises(ValueError, match=r"^fit: the term 'centre' must return a scalar, got a tensor of shape \(2,\)"):
        next(Fit(Painted(), ball(), iterations=1, terms=[Long()]))


@pytest.mark.parametrize(("misspelt", "nearest"), [("colr", "color"), ("masks", "mask"), ("eikonl", "eikonal")])
def test_a_misspelt_weight_is_refused_with_the_nearest_name(misspelt, nearest):
    with pytest.raises(ValueError, match=rf"no weight or option '{misspelt}'; did you mean {nearest}\?$"):
        Recipe().with_values(**{misspelt: 2.0})
    assert Recipe().with_values(color=2.0) == Recipe(color=2.0)


def own(answer: object) -> object:
    """A term that returns `answer`."""

    class Own(Centre):
        def __call__(self, context):
            return answer

    return Own()


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (torch.tensor(1.0), "Tensor"),
        (1.5, "float"),
        (None, "NoneType"),
        ((1.5, 0), "float and int"),
        ((torch.tensor(1.0), 0.5), "Tensor and float"),
        ((torch.tensor(1.0), 0, 0), "Tensor and int and int"),
    ],
)
def test_a_term_without_a_tensor_or_a_count_is_named(answer, got):
    message = (
        r"^fit: the term 'centre' must return a scalar tensor and the number of its field evaluations, "
        rf"such as `return loss, len\(x\)`, got {got}$"
    )
    with pytest.raises(ValueError, match=message):
        next(Fit(Painted(), ball(), iterations=1, recipe=SMALL, terms=[own(answer)]))


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (Volume(1.0), r"terms must be a list of terms, such as terms=\[term\], got Volume alone$"),
        (Volume, r"terms must be a list of terms, such as terms=\[term\], got Volume alone$"),
        (3, "terms must be a list of terms, .* got int alone$"),
        ([Centre], "a term must be an object, got the class Centre; call it to make one$"),
        ([Volume("1")], "the weight of the term 'volume' must be a number, got '1'$"),  # type: ignore[arg-type]
        ([Volume(None)], "the weight of the term 'volume' must be a number, got None$"),  # type: ignore[arg-type]
        ([Volume(1.0, 7)], "the name of a term must be text, but that of Volume is 7$"),  # type: ignore[arg-type]
    ],
)
def test_terms_that_cannot_be_used_are_refused_in_one_sentence(terms, said):
    with pytest.raises(ValueError, match=f"^fit: {said}"):
        Fit(Painted(), ball(), iterations=1, recipe=SMALL, terms=terms)
