"""What a fitted scikit-learn estimator tells of the columns it takes: values it knows, thresholds it splits at, words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from tensign.values import is_missing

_MOST = 1000  # values of a column
CATEGORIES, WORDS, NUMBERS = "categories", "words", "numbers"

_Found = dict[Any, dict[str, list[Any]]]


def known_values(estimator: Any, columns: Sequence[Any]) -> dict[Any, tuple[str, list[Any]]]:
    """{column: (what they are, values that make a difference)}: CATEGORIES, WORDS of a text, or NUMBERS among which it splits.

    columns: their names or places, in their order. Of one that the estimator tells nothing of there is nothing.
    """
    found: _Found = defaultdict(lambda: defaultdict(list))
    _walk(estimator, list(columns), found)
    best = {column: next(kind for kind in (CATEGORIES, WORDS, NUMBERS) if kind in kinds) for column, kinds in found.items()}
    return {column: (kind, list(dict.fromkeys(found[column][kind]))[:_MOST]) for column, kind in best.items()}


def _walk(estimator: Any, columns: list[Any], found: _Found) -> None:
    if hasattr(estimator, "best_estimator_"):
        _walk(estimator.best_estimator_, columns, found)
    elif isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            _walk(step, columns, found)
            columns = _passed_on(step, columns)
    elif isinstance(estimator, ColumnTransformer):
        for _, step, chosen in estimator.transformers_:
            _walk(step, _chosen(chosen, columns), found)
    elif isinstance(estimator, FeatureUnion):
        for _, step in estimator.transformer_list:
            _walk(step, columns, found)
    else:
        kind, told = _told(estimator, len(columns))
        for column, values in zip(columns, told, strict=False):
            if values and column is not None:
                found[column][kind] += values


def _passed_on(step: Any, columns: list[Any]) -> list[Any]:
    """The columns that come out of it as they are, in their new places; None in the others."""
    if isinstance(step, SimpleImputer) and step.indicator_ is None:
        return columns
    if not isinstance(step, ColumnTransformer):
        return []
    places = {place for chosen in step.output_indices_.values() for place in range(chosen.start, chosen.stop)}
    found: list[Any] = [None] * len(places)
    for name, part, chosen in step.transformers_:
        if isinstance(part, FunctionTransformer) and part.func is None:
            found[step.output_indices_[name]] = _chosen(chosen, columns)
    return found


def _chosen(chosen: Any, columns: list[Any]) -> list[Any]:
    """As a ColumnTransformer names them: by name, place, slice or mask, or one of them alone."""
    if isinstance(chosen, slice):
        return columns[chosen]
    several = np.atleast_1d(np.asarray(chosen)).tolist()
    if several and all(isinstance(one, bool) for one in several):
        return [column for column, taken in zip(columns, several, strict=True) if taken]
    return [columns[one] if isinstance(one, int) and one not in columns else one for one in several]


def _told(estimator: Any, columns: int) -> tuple[str, list[list[Any]]]:
    """Values, column by column."""
    if hasattr(estimator, "categories_"):
        return CATEGORIES, [[one for one in values.tolist() if not is_missing(one)] for values in estimator.categories_]
    if isinstance(getattr(estimator, "vocabulary_", None), dict):
        return WORDS, [sorted(map(str, estimator.vocabulary_))]
    centre, scale = getattr(estimator, "mean_", getattr(estimator, "center_", None)), getattr(estimator, "scale_", None)
    if centre is not None and scale is not None:
        return NUMBERS, (centre + scale * np.array([[-2.0], [0.0], [2.0]])).T.tolist()
    if hasattr(estimator, "data_min_"):
        return NUMBERS, np.stack([estimator.data_min_, estimator.data_max_], axis=1).tolist()
    return NUMBERS, _thresholds(estimator, columns)


def _thresholds(estimator: Any, columns: int) -> list[list[Any]]:
    """Of trees."""
    found: list[list[Any]] = [[] for _ in range(columns)]
    for one in np.ravel(getattr(estimator, "estimators_", estimator)):
        if hasattr(one, "tree_"):
            for feature, threshold in zip(one.tree_.feature.tolist(), one.tree_.threshold.tolist(), strict=True):
                if 0 <= feature < columns and np.isfinite(threshold):
                    found[feature].append(threshold)
    for predictor in (one for several in getattr(estimator, "_predictors", []) for one in several):
        for node in predictor.nodes[predictor.nodes["is_leaf"] == 0]:
            if node["feature_idx"] < columns and np.isfinite(node["num_threshold"]):
                found[node["feature_idx"]].append(float(node["num_threshold"]))
    return found
