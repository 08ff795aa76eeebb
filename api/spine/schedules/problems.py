"""Whether a schedule's runs will fail because the workflow's code does not take its parameters any more."""

from uuid import UUID

from spine.prefect.client import Deployment
from spine.prefect.filters import Json
from spine.prefect.parameters import EVALUATED_KEY, check_parameters
from spine.text import shortened

# A list shows at most a hundred schedules; the checks of some lists are worth keeping, those of all schedules are not.
MOST_KEPT = 1_000

MOST_NAMED = 5
LONGEST_REASON = 200

_kept: dict[UUID, tuple[Json | None, list[Json], str | None]] = {}


def problem_of(deployment: Deployment) -> str | None:
    """What is wrong with the parameters that a schedule runs with, as one sentence; None when nothing is."""
    schema = deployment.parameter_openapi_schema
    # Each timing may have parameters of its own.
    parameters = [{**deployment.parameters, **row.parameters} for row in deployment.schedules] or [
        deployment.parameters
    ]
    kept = _kept.get(deployment.id)
    if kept and kept[0] == schema and kept[1] == parameters:
        return kept[2]
    problem = next(filter(None, (_find_problem(schema, one) for one in parameters)), None)
    if len(_kept) >= MOST_KEPT:
        _kept.clear()
    _kept[deployment.id] = (schema, parameters, problem)
    return problem


def _find_problem(schema: Json | None, parameters: Json) -> str | None:
    # Prefect evaluates these when a run starts; what comes out is not known before.
    evaluated = {name: value for name, value in parameters.items() if EVALUATED_KEY in str(value)}
    given = {name: value for name, value in parameters.items() if name not in evaluated}
    try:
        problems = check_parameters(schema, evaluated, given)
    except Exception:
        # A schema is any JSON that someone deployed, and the validator raises all kinds of errors at a broken one.
        return None
    if not problems:
        return None
    named = [
        f"{'.'.join(map(str, one.loc)) or 'all'}: {shortened(one.msg, LONGEST_REASON)}" for one in problems[:MOST_NAMED]
    ]
    more = [f"and {len(problems) - MOST_NAMED} more"] if len(problems) > MOST_NAMED else []
    return f"The workflow's code does not take these parameters: {'; '.join(named + more)}."
