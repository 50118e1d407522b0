"""The form in which a model returned its answer. Imported by workers, whose Python may be 3.8."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """What kind of thing the model itself returned, for faces that answer in its own form as MLflow's server does.

    kind: "ndarray", "list", "series", "dataframe", "records" (a list of maps), "dict" or "tuple"; names: its own names of
    what became the outputs, in their order, such as the columns of a DataFrame.
    """

    kind: str
    names: tuple[str, ...] = ()
