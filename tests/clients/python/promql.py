"""Reads a list of PromQL expressions as JSON, and prints the names of the metrics that each asks for, as a JSON list of lists."""

import json
import sys

import promql_parser as promql


def names(node):
    if isinstance(node, promql.VectorSelector):
        return [node.name]
    if isinstance(node, promql.MatrixSelector):
        return names(node.vector_selector)
    if isinstance(node, promql.BinaryExpr):
        return names(node.lhs) + names(node.rhs)
    if isinstance(node, promql.Call):
        return [name for argument in node.args for name in names(argument)]
    if isinstance(node, (promql.AggregateExpr, promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
        return names(node.expr)
    if isinstance(node, (promql.NumberLiteral, promql.StringLiteral)):
        return []
    raise SystemExit(f"no case for {type(node).__name__}")


def asked(expression):
    try:
        return sorted(set(names(promql.parse(expression))))
    except ValueError as error:
        raise SystemExit(f"{expression}: {error}")


json.dump([asked(expression) for expression in json.load(sys.stdin)], sys.stdout)
