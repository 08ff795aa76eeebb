"""`/api/v1/alerts`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from spine.alerts import channel_service, handling, queries
from spine.alerts.outbox import AlertEvent
from spine.alerts.queries import AlertQuery
from spine.alerts.runtime import Alerting
from spine.alerts.schemas import (
    AlertAcknowledge,
    AlertChannelCreate,
    AlertChannelResponse,
    AlertChannelUpdate,
    AlertCreate,
    AlertDetail,
    AlertResolve,
    AlertState,
    AlertStats,
    AlertSummary,
    ChannelTestResponse,
    ChannelType,
    StatsPeriod,
)
from spine.auth.callers import Scope
from spine.http.dependencies import (
    WITH_SECRETS,
    CallerDep,
    DomainsDep,
    FilterText,
    IdempotentDep,
    PageDep,
    SessionDep,
    SessionsDep,
)
from spine.http.openapi import errors
from spine.http.scopes import needs
from spine.pagination import Page
from spine.schemas import ActionResponse, UtcTime
from spine.severity import Severity

router = APIRouter(prefix="/alerts", tags=["alerts"])


async def get_alerting(request: Request) -> Alerting:
    """The application's alerting."""
    alerting: Alerting = request.app.state.alerting
    return alerting


AlertingDep = Annotated[Alerting, Depends(get_alerting)]


@router.get("/channels", operation_id="list_alert_channels", responses=errors(422))
async def list_channels(
    session: SessionDep,
    domains: DomainsDep,
    page: PageDep,
    channel_type: ChannelType | None = None,
    enabled: bool | None = None,
) -> Page[AlertChannelResponse]:
    """List channels, newest first."""
    return await channel_service.list_channels(session, domains, channel_type, enabled, page)


@router.post(
    "/channels",
    operation_id="create_alert_channel",
    status_code=201,
    responses=errors(400, 409, 413, 415, 422),
    dependencies=WITH_SECRETS,
    openapi_extra=needs(Scope.CONFIGURE),
)
async def create_channel(
    session: SessionDep, alerting: AlertingDep, caller: CallerDep, body: AlertChannelCreate
) -> ActionResponse:
    """Create a channel. Its secrets are encrypted; nothing is sent yet."""
    return await channel_service.create_channel(session, alerting.secrets, caller, body)


@router.get("/channels/{channel_id}", operation_id="get_alert_channel", responses=errors(404, 409))
async def get_channel(session: SessionDep, domains: DomainsDep, channel_id: str) -> AlertChannelResponse:
    """Get one channel by id or name, without its secrets."""
    return channel_service.present(await channel_service.find_channel(session, domains, channel_id))


@router.patch(
    "/channels/{channel_id}",
    operation_id="update_alert_channel",
    responses=errors(400, 404, 409, 413, 415, 422),
    dependencies=WITH_SECRETS,
    openapi_extra=needs(Scope.CONFIGURE),
)
async def update_channel(
    session: SessionDep, alerting: AlertingDep, domains: DomainsDep, channel_id: str, body: AlertChannelUpdate
) -> AlertChannelResponse:
    """Change the given fields; a secret given as `***` is kept."""
    return await channel_service.update_channel(session, alerting.secrets, domains, channel_id, body)


@router.delete(
    "/channels/{channel_id}",
    operation_id="delete_alert_channel",
    responses=errors(404),
    openapi_extra=needs(Scope.CONFIGURE),
)
async def delete_channel(session: SessionDep, domains: DomainsDep, channel_id: str) -> ActionResponse:
    """Delete a channel; the history of its deliveries is kept."""
    return await channel_service.delete_channel(session, domains, channel_id)


@router.post(
    "/channels/{channel_id}/test",
    operation_id="test_alert_channel",
    responses=errors(404, 409),
    dependencies=WITH_SECRETS,
    openapi_extra=needs(Scope.CONFIGURE),
)
async def test_channel(
    sessions: SessionsDep, alerting: AlertingDep, caller: CallerDep, channel_id: str
) -> ChannelTestResponse:
    """Send a real test message now, and return what the receiver answered."""
    return await alerting.send_test_message(sessions, channel_id, caller)


@router.get("/", include_in_schema=False)
@router.get("", operation_id="list_alerts", responses=errors(422))
async def list_alerts(
    session: SessionDep,
    domains: DomainsDep,
    page: PageDep,
    severity: Severity | None = None,
    source: FilterText | None = None,
    domain: FilterText | None = None,
    since: Annotated[UtcTime | None, Query(description="Only alerts raised at or after this time.")] = None,
    state: Annotated[list[AlertState] | None, Query(description="Only alerts in one of these states.")] = None,
) -> Page[AlertSummary]:
    """List alerts, newest first."""
    return await queries.list_alerts(session, AlertQuery(domains, severity, source, domain, since, state), page)


@router.post(
    "/",
    status_code=201,
    response_model=ActionResponse,
    include_in_schema=False,
    openapi_extra=needs(Scope.WRITE),
)
@router.post(
    "",
    operation_id="create_alert",
    status_code=201,
    response_model=ActionResponse,
    responses=errors(400, 409, 413, 415, 422),
    openapi_extra=needs(Scope.WRITE),
)
async def create_alert(alerting: AlertingDep, domains: DomainsDep, once: IdempotentDep, body: AlertCreate) -> Response:
    """Raise an alert. It is stored with its deliveries before the response, and sent after it."""

    async def work(operation_id: str) -> ActionResponse:
        values = body.model_dump()
        event = AlertEvent(**values | {"details": values.pop("metadata")}, cause=f"request:{operation_id}")
        return await alerting.intake.request_alert(domains, event)

    answer = await once.run(work)
    alerting.dispatcher.wake()
    return Response(answer, status_code=201, media_type="application/json")


@router.get("/stats", operation_id="get_alert_stats", responses=errors(422))
async def get_stats(session: SessionDep, domains: DomainsDep, period: StatsPeriod = StatsPeriod.DAY) -> AlertStats:
    """Count the alerts of the last hour, day, week or month."""
    return await queries.read_stats(session, domains, period)


@router.get("/{alert_id}", operation_id="get_alert", responses=errors(404, 409))
async def get_alert(session: SessionDep, domains: DomainsDep, alert_id: str) -> AlertDetail:
    """Get one alert with its deliveries."""
    return await queries.read_alert(session, domains, alert_id)


@router.post(
    "/{alert_id}/acknowledge",
    operation_id="acknowledge_alert",
    responses=errors(400, 404, 409, 413, 415, 422),
    openapi_extra=needs(Scope.WRITE),
)
async def acknowledge_alert(
    session: SessionDep, caller: CallerDep, alert_id: str, body: AlertAcknowledge | None = None
) -> AlertDetail:
    """Acknowledge an alert and all alerts about its problem: no reminders are sent, and incidents are acknowledged."""
    return await handling.acknowledge(session, caller, alert_id, body or AlertAcknowledge())


@router.post(
    "/{alert_id}/resolve",
    operation_id="resolve_alert",
    responses=errors(400, 404, 409, 413, 415, 422),
    openapi_extra=needs(Scope.WRITE),
)
async def resolve_alert(
    session: SessionDep, caller: CallerDep, alert_id: str, body: AlertResolve | None = None
) -> AlertDetail:
    """Resolve an alert and all alerts about its problem, and inform the channels that were informed of it."""
    return await handling.resolve(session, caller, alert_id, body or AlertResolve())


@router.post(
    "/{alert_id}/reopen",
    operation_id="reopen_alert",
    responses=errors(404, 409),
    openapi_extra=needs(Scope.WRITE),
)
async def reopen_alert(session: SessionDep, caller: CallerDep, alert_id: str) -> AlertDetail:
    """Let an alert that was acknowledged or resolved fire again, with all alerts about its problem."""
    return await handling.reopen(session, caller, alert_id)
