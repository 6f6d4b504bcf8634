"""A section that comes in kinds: looked up when a config is read, with errors as of any other section."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from settings.errors import InputError
from settings.kinds import Kinds
from settings.loading import validate
from settings.sections import Section, problem
from settings.words import expanded_schema, in_words

SOLIDS = Kinds(package="solids", default="cube")


class Toy(Section):
    solid: Annotated[Section, SOLIDS] = Field(default_factory=SOLIDS.make_default, description="a solid")


class Cube(Section):
    kind: Literal["cube"] = "cube"
    side: int = Field(1, ge=1, description="cells")
    corner: tuple[int, ...] = (0, 0)


class Ball(Section):
    kind: Literal["ball"] = "ball"
    radius: float = Field(gt=0, description="world units")
    side: Literal["left", "right"] = "left"


for solid in (Cube, Ball):
    SOLIDS.add(solid)


def toy(**data) -> Toy:
    return validate(Toy, data, {key: "toy.yaml" for key in data}, "run.yaml")


@pytest.mark.parametrize(
    ("solid", "field", "found", "expected"),
    [
        ({"kind": "cube", "radius": 1}, "solid.radius", "an unknown key", "one of kind, side"),
        ({"radius": 1}, "solid.radius", "an unknown key", "one of kind, side"),
        ({"sides": 1}, "solid.sides", "an unknown key", "one of kind, side"),
        ({"side": 0}, "solid.side", "0", "an integer >= 1"),
        ({"kind": "ball", "radius": 1.0, "side": 0}, "solid.side", "0", "one of `left`, `right`"),
        ({"kind": "ball", "radius": "big"}, "solid.radius", '"big"', "a number > 0"),
        ({"kind": "ball"}, "solid.radius", "nothing", "a number > 0"),
        ({"kind": "cone", "height": 1}, "solid.kind", "cone", "one of cube, ball"),
        ({"kind": None}, "solid.kind", "None", "one of cube, ball"),
        ({"kind": ["cube"]}, "solid.kind", "['cube']", "one of cube, ball"),
        (None, "solid", "null", "a section with keys kind, side"),
        (3, "solid", "3", "a section with keys kind, side"),
    ],
)
def test_errors_name_the_field_and_what_its_kind_expects(solid, field, found, expected):
    with pytest.raises(InputError) as caught:
        toy(solid=solid)
    error = caught.value
    assert (error.source, error.field, error.found) == ("toy.yaml", field, found)
    assert error.expected.startswith(expected)


def test_hints_are_of_the_sections_own_kind():
    def hint(**solid) -> str:
        with pytest.raises(InputError) as caught:
            toy(solid=solid)
        return caught.value.hint

    assert hint(sides=1) == "Did you mean solid.side?"
    assert hint(radius=1.0) == ""  # solid.radius is what was written
    assert hint(side=0) == "It is: cells."


def test_the_kind_decides_and_the_default_steps_in():
    assert toy() == toy(solid={}) == toy(solid={"kind": "cube", "side": 1}) == Toy(solid=Cube())
    assert toy(solid={"kind": "ball", "radius": 2.0}) == Toy(solid=Ball(radius=2.0))
    assert toy(solid={"side": 3}).solid.side == 3


def test_a_section_is_dumped_with_its_kind():
    whole = toy(solid={"kind": "ball", "radius": 2.0})
    assert whole.model_dump() == {"solid": {"kind": "ball", "radius": 2.0, "side": "left"}}
    assert toy().model_dump()["solid"]["corner"] == (0, 0)
    assert toy().model_dump(mode="json")["solid"]["corner"] == [0, 0]


def test_the_schema_has_every_kind_that_has_joined():
    shapes = Kinds(package="shapes", default="cube")

    class Late(Section):
        shape: Annotated[Section, shapes] = Field(default_factory=shapes.make_default, description="a shape")

    for use in (lambda: Late(), lambda: Late(shape={}), lambda: expanded_schema(Late)):
        with pytest.raises(RuntimeError, match="import shapes first"):
            use()
    shapes.add(Cube)
    assert in_words(expanded_schema(Late)["properties"]["shape"]) == "a section with keys kind, side, corner"
    shapes.add(Ball)
    words = in_words(expanded_schema(Late)["properties"]["shape"])
    assert words == "a section with keys kind, side, corner or a section with keys kind, radius, side"


def test_a_validators_own_words_reach_the_whole_config():
    class Odd(Section):
        kind: Literal["odd"] = "odd"
        number: int = 1

        def model_post_init(self, context: object) -> None:
            if self.number % 2 == 0:
                raise problem("number", self.number, "an odd one", f"Try {self.number + 1}.")

    numbers = Kinds(package="numbers", default="odd")
    numbers.add(Odd)

    class Holder(Section):
        inner: Annotated[Section, numbers] = Field(default_factory=numbers.make_default)

    class Whole(Section):
        holder: Holder = Holder()

    with pytest.raises(InputError) as caught:
        validate(Whole, {"holder": {"inner": {"number": 4}}}, {}, "run.yaml")
    assert str(caught.value) == "run.yaml: holder.inner.number: found 4, expected an odd one. Try 5."
