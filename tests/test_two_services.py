"""Two services of one backend share a database and nothing else."""

import sys
from pathlib import Path

import psycopg

from .support import SCHEDULED, copy, database, environment, query, run, service, tables


def migrate(folder: Path, url: str, *, package: str) -> None:
    run(
        *(sys.executable, "-m", f"{package}.workers", "migrate"),
        cwd=folder,
        env=environment(WORKERS_DATABASE_URL=url),
    )


def test_two_services_share_a_database_and_nothing_in_it(
    tmp_path: Path, server_url: str
) -> None:
    root = tmp_path / "backend"
    copy(root, "-d", "scope=backend", *SCHEDULED, cwd=tmp_path)
    copy("app/shipping", *SCHEDULED, cwd=root)
    with database(server_url) as url:
        migrate(root, url, package="app.billing")
        of_billing = set(tables(url))
        migrate(root, url, package="app.shipping")
        of_shipping = set(tables(url)) - of_billing
        assert {name.removeprefix("billing_") for name in of_billing} == {
            name.removeprefix("shipping_") for name in of_shipping
        }
        with (
            service(
                root, "app.billing.main:app", {"WORKERS_DATABASE_URL": url}
            ) as billing,
            service(
                root, "app.shipping.main:app", {"WORKERS_DATABASE_URL": url}
            ) as shipping,
            psycopg.connect(url, autocommit=True) as listener,
        ):
            listener.execute("LISTEN billing_events")
            listener.execute("LISTEN shipping_events")
            id = billing.run_job("send_digest")
            channels = {
                notify.channel
                for notify in listener.notifies(timeout=1)
                if '"queue.pushed"' in notify.payload
            }
            assert channels == {"billing_events"}
            assert query(url, "SELECT id::text FROM billing_jobs") == [(id,)]
            assert query(url, "SELECT * FROM shipping_jobs") == []

            query(url, "UPDATE billing_queues SET state = 'paused'")
            query(url, "UPDATE billing_cron SET cron = '0 0 1 1 *'")
            shipping.run_job("send_digest")

            billing.stop()
            shipping.stop()
        assert query(url, "SELECT state FROM shipping_queues") == [("active",)]
        assert query(url, "SELECT cron FROM shipping_cron") == [("0 7 * * mon-fri",)]
        (billing_worker,), (shipping_worker,) = (
            query(url, f"SELECT DISTINCT taken_by FROM {prefix}_jobs")
            for prefix in ("billing", "shipping")
        )
        assert billing_worker != shipping_worker
        assert "shipping" not in billing.output and "billing" not in shipping.output
