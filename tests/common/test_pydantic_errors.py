import pytest
from pydantic import BaseModel, ValidationError

from cusa.common.pydantic_errors import first_problem


class Part(BaseModel):
    rows: int


class Whole(BaseModel):
    parts: list[Part]


def test_the_key_has_dots_and_the_message_is_that_of_pydantic():
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"parts": [{"rows": 1}, {"rows": "many"}, {}]})
    key, message = first_problem(caught.value)
    assert key == "parts.1.rows"
    assert message.startswith("Input should be a valid integer")
