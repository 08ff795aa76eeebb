"""Whether a schedule's runs will fail because the workflow's code no longer accepts its parameters."""

from uuid import UUID

from spine.prefect.client import Deployment
from spine.prefect.filters import Json
from spine.prefect.parameters import EVALUATED_KEY, check_parameters
from spine.text import shortened

# A page has at most 100 schedules; the results of several pages are worth caching, those of all schedules are not.
MOST_CACHED = 1_000

MOST_NAMED = 5
LONGEST_REASON = 200

_cache: dict[UUID, tuple[Json | None, list[Json], str | None]] = {}


def problem_of(deployment: Deployment) -> str | None:
    """What is wrong with the parameters that a schedule runs with, as one sentence; None if nothing is."""
    schema = deployment.parameter_openapi_schema
    # Each timing may have its own parameters.
    parameters = [{**deployment.parameters, **row.parameters} for row in deployment.schedules] or [
        deployment.parameters
    ]
    cached = _cache.get(deployment.id)
    if cached and cached[0] == schema and cached[1] == parameters:
        return cached[2]
    problem = next(filter(None, (_find_problem(schema, one) for one in parameters)), None)
    if len(_cache) >= MOST_CACHED:
        _cache.clear()
    _cache[deployment.id] = (schema, parameters, problem)
    return problem


def _find_problem(schema: Json | None, parameters: Json) -> str | None:
    # Prefect evaluates these when a run starts; the result is not known before.
    evaluated = {name: value for name, value in parameters.items() if EVALUATED_KEY in str(value)}
    given = {name: value for name, value in parameters.items() if name not in evaluated}
    try:
        problems = check_parameters(schema, evaluated, given)
    except Exception:
        # A deployed schema can be any JSON, and the validator raises many kinds of errors for an invalid one.
        return None
    if not problems:
        return None
    named = [
        f"{'.'.join(map(str, one.loc)) or 'all'}: {shortened(one.msg, LONGEST_REASON)}" for one in problems[:MOST_NAMED]
    ]
    more = [f"and {len(problems) - MOST_NAMED} more"] if len(problems) > MOST_NAMED else []
    return f"The workflow's code does not accept these parameters: {'; '.join(named + more)}."
