"""Workflows that can be triggered: Prefect flows that have a deployment."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from spine.auth.domains import Domains
from spine.names import domains_in
from spine.pagination import Page, PageRequest, make_page
from spine.prefect.client import Deployment, FlowRun, Prefect
from spine.prefect.filters import Json, RunFilter
from spine.workflows.deployments import find_workflow, own_deployments
from spine.workflows.labels import domain_of
from spine.workflows.run_pages import BY_START
from spine.workflows.schemas import WorkflowDefinition, WorkflowParameter
from spine.workflows.step_counts import step_counts

COMPLETED = {"type": {"any_": ["COMPLETED"]}}


async def list_definitions(
    prefect: Prefect, domains: Domains, domain: str | None, page: PageRequest
) -> Page[WorkflowDefinition]:
    """A page of the workflows of these domains, ordered by name."""
    flows = await prefect.all_flows()
    own = await own_deployments(prefect, {flow.id: flow.name for flow in flows})
    seen = {flow_id: one for flow_id, one in own.items() if domains.allow_any(domains_in(one.tags))}
    matching = [flow for flow in flows if flow.id in seen and domain in (None, domain_of(seen[flow.id].tags))]
    shown = sorted(matching, key=lambda flow: flow.name)[page.offset : page.offset + page.limit]
    steps = await _step_counts(prefect, [flow.id for flow in shown])
    rows = [_to_definition(flow.name, own[flow.id], steps[flow.id]) for flow in shown]
    return make_page(rows, len(matching), page)


async def read_definition(prefect: Prefect, domains: Domains, workflow_name: str) -> WorkflowDefinition:
    """One workflow. Raises `NotFound`, and `Conflict` for a flow without a deployment."""
    deployment = await find_workflow(prefect, domains, workflow_name)
    steps = await _step_counts(prefect, [deployment.flow_id])
    return _to_definition(workflow_name, deployment, steps[deployment.flow_id])


async def _step_counts(prefect: Prefect, flow_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The number of steps of each flow's newest completed run: Prefect knows a flow's steps only from its runs."""
    newest: list[list[FlowRun]] = await asyncio.gather(*(_newest_completed(prefect, flow_id) for flow_id in flow_ids))
    runs = [run for found in newest for run in found]
    counts = await step_counts(prefect, runs)
    by_flow = {run.flow_id: counts[run.id].total for run in runs}
    return {flow_id: by_flow.get(flow_id, 0) for flow_id in flow_ids}


async def _newest_completed(prefect: Prefect, flow_id: UUID) -> list[FlowRun]:
    wanted = RunFilter(runs={"state": COMPLETED}, flows={"id": {"any_": [str(flow_id)]}})
    return await prefect.list_runs(wanted, BY_START.sort, limit=1)


def _to_definition(name: str, deployment: Deployment, step_count: int) -> WorkflowDefinition:
    return WorkflowDefinition(
        name=name,
        domain=domain_of(deployment.tags),
        # For a flow without a docstring, `prefect deploy` stores the text "None".
        description="" if deployment.description in (None, "None") else deployment.description,
        step_count=step_count,
        parameters=describe_parameters(deployment.parameter_openapi_schema or {}, deployment.parameters),
        tags=sorted(deployment.tags),
    )


def describe_parameters(schema: Json, defaults: Json) -> list[WorkflowParameter]:
    """The parameters of a flow's schema, in order; a value of the deployment replaces the flow's default."""
    required = set(schema.get("required", []))
    definitions = schema.get("definitions", {})
    properties = sorted(schema.get("properties", {}).items(), key=lambda item: item[1].get("position", 0))
    return [_describe(name, prop, definitions, name in required, defaults) for name, prop in properties]


def _describe(name: str, prop: Json, definitions: Json, required: bool, defaults: Json) -> WorkflowParameter:
    resolved = _resolve(_only_alternative(prop), definitions)
    optional: dict[str, Any] = {
        key: resolved[key] for key in ("format", "enum", "description") if resolved.get(key) is not None
    }
    if name in defaults:
        optional["default"] = defaults[name]
    elif "default" in prop:
        optional["default"] = prop["default"]
    return WorkflowParameter(
        name=name, type=_type_of(prop, definitions), required=required and name not in defaults, **optional
    )


def _only_alternative(prop: Json) -> Json:
    """The schema of the only alternative that is not null, if there is exactly one; else the schema itself."""
    others = [one for one in prop.get("anyOf", []) if one.get("type") != "null"]
    return others[0] if len(others) == 1 else prop


def _resolve(prop: Json, definitions: Json) -> Json:
    reference = prop.get("$ref") or next((part.get("$ref") for part in prop.get("allOf", []) if "$ref" in part), None)
    if reference is None:
        return prop
    return {**definitions.get(str(reference).rpartition("/")[2], {}), **prop}


def _type_of(prop: Json, definitions: Json) -> str:
    resolved = _resolve(prop, definitions)
    if "type" in resolved:
        found = resolved["type"]
        return "|".join(found) if isinstance(found, list) else str(found)
    alternatives = resolved.get("anyOf") or resolved.get("oneOf") or []
    names = dict.fromkeys(_type_of(alternative, definitions) for alternative in alternatives)
    return "|".join(names) or "any"
