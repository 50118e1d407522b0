"""A PythonModel that gives its columns back in the form that a param names; written where the tests want it.

python echo_model.py DIRECTORY_OF_SCALARS DIRECTORY_OF_COMPOUND_TYPES
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")  # of libraries that are not ours

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow.models import ModelSignature  # noqa: E402
from mlflow.pyfunc import save_model  # noqa: E402
from mlflow.pyfunc.model import PythonModel  # noqa: E402
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema  # noqa: E402
from mlflow.types.schema import AnyType, Array, DataType, Map, Object, Property  # noqa: E402

SCALARS: dict[str, Any] = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "long",
    "float": "float",
    "double": "double",
    "string": "string",
    "binary": "binary",
    "datetime": "datetime",
}
COMPOUND: dict[str, Any] = {
    "array": Array(DataType.long),
    "object": Object([Property("a", DataType.string), Property("b", DataType.double, required=False)]),
    "map": Map(DataType.long),
    "any": AnyType(),  # type: ignore[no-untyped-call]
}


class Echo(PythonModel):
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        form = (params or {}).get("form", "dataframe")
        only = model_input.iloc[:, :1]
        if form == "dataframe":
            return model_input
        if form == "records":
            return model_input.to_dict("records")
        if form == "dict":
            return {name: model_input[name].to_numpy() for name in model_input}
        if form == "series":
            return only.iloc[:, 0]
        if form == "nameless series":
            return pd.Series(only.iloc[:, 0].to_list())
        if form == "ndarray":
            return only.iloc[:, 0].to_numpy()
        if form == "matrix":
            return np.arange(2.0 * len(only)).reshape(len(only), 2)
        if form == "frame of a matrix":
            return pd.DataFrame(np.arange(2.0 * len(only)).reshape(len(only), 2))
        if form == "arrays":
            return pd.Series([np.arange(3.0)] * len(only)).to_frame("predictions")
        return only.iloc[:, 0].to_list()


def main() -> None:
    params = ParamSchema([ParamSpec("form", "string", "dataframe")])
    for path, columns in zip(sys.argv[1:], (SCALARS, COMPOUND), strict=True):
        inputs = Schema([ColSpec(kind, name, required=False) for name, kind in columns.items()])
        save_model(path, python_model=Echo(), signature=ModelSignature(inputs, None, params), pip_requirements=[])


if __name__ == "__main__":
    main()
