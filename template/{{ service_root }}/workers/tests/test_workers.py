"""The service's queues, cron jobs and workers start and stop with it."""

import pytest
from chancy_runtime import Chancy, Cron
from chancy_runtime.testing import Service
from chancy_runtime.web import find_problems

from ..chancy_initialization import CRON_JOBS, QUEUES, initialize_workers
from ..chancy_instance import get_chancy

pytestmark = pytest.mark.anyio


async def test_the_declared_queues_and_cron_jobs_are_in_the_database(
    chancy: Chancy,
) -> None:
    queues = {queue.name for queue in await chancy.get_all_queues()}
    schedules = await Cron.get_schedules(chancy)

    assert {queue.name for queue in QUEUES} <= queues
    assert {cron_job.unique_key for cron_job in CRON_JOBS} == schedules.keys()


@pytest.mark.usefixtures("tables")
async def test_the_workers_run_until_the_service_stops(service: Service) -> None:
    async with initialize_workers():
        await service.until_ready()
        assert await find_problems(get_chancy) == []

    with pytest.raises(RuntimeError, match="enter initialize_workers"):
        get_chancy()
