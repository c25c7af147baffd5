"""A guest that moves between QEMU processes, each with a back-end of its own, over one disk file."""

import time

from lab import MIB, START_LIMIT, LabError, wait_until

MOVE_LIMIT = 100  # seconds
SLOW = 2 * MIB  # bytes a second, for a migration that shall not end by itself


class Site:
    """A host: a back-end that stays, and QEMU processes that come and go."""

    def __init__(self, lab, name, queues, serve_options):
        self.lab, self.name, self.machines = lab, name, 0
        self.socket = lab.folder / f"{name}.sock"
        self.backend = lab.backend_type(lab, queues=queues, socket=self.socket,
                                        options=["--lock-while-running", *serve_options])
        self.backend.start()
        self.machine = None

    def boot(self, **options):
        self.machines += 1
        control = self.lab.folder / f"{self.name}{self.machines}.qmp"
        self.machine = self.lab.boot("migrate.sh", front=self.socket, control=control, **options)
        return self.machine


class Journey:
    def __init__(self, lab, queues, serve_options, disk_options="", extra=(), **options):
        self.lab = lab
        self.options = dict(options, processors=queues, disk_options=f",num-queues={queues}" + disk_options, extra=extra)
        self.here, self.there = (Site(lab, name, queues, serve_options) for name in "AB")
        self.log = []

    def go(self, moves):
        """Carries out the moves, one whenever the guest asks, and follows the guest to its end."""
        self.lab.backend = self.here.backend
        machine = self.here.boot(**self.options)
        left = list(moves)

        def migrate():
            if not left:
                return "enough"
            left.pop(0)(self)
            return self.here.machine, "moved"

        machine.run(migrate=migrate).wait_for_end()
        for site in (self.here, self.there):
            site.backend.stop()

    def move(self, postcopy=False):
        """Moves the guest to the other site, which is `here` then."""
        source, target = self.here.machine, self._receiver()
        if postcopy:
            for machine in (source, target):
                machine.qmp("migrate-set-capabilities", capabilities=[{"capability": "postcopy-ram", "state": True}])
        self._start(source, target, slowly=postcopy)
        if postcopy:
            self._wait_for_bytes(source)
            source.qmp("migrate-set-parameters", **{"max-postcopy-bandwidth": 0})
            source.qmp("migrate-start-postcopy")
        self._wait_for(source, "completed")
        wait_until(lambda: target.qmp("query-status")["status"] == "running", START_LIMIT, "the guest to run again")
        source.close()
        self.here, self.there = self.there, self.here
        self.lab.backend = self.here.backend

    def give_up(self):
        """Begins to move the guest, and lets it be."""
        source, target = self.here.machine, self._receiver()
        self._start(source, target, slowly=True)
        self._wait_for_bytes(source)
        source.qmp("migrate_cancel")
        self._wait_for(source, "cancelled")
        target.close()

    def _receiver(self):
        return self.there.boot(**dict(self.options, extra=(*self.options["extra"], "-incoming", "defer")))

    def _start(self, source, target, slowly):
        uri = f"unix:{self.lab.folder / 'migration.sock'}"
        target.qmp("migrate-incoming", uri=uri)
        source.qmp("migrate-set-parameters", **{"max-bandwidth": SLOW if slowly else 1 << 30, "downtime-limit": 1000})
        source.qmp("migrate", uri=uri)

    def _wait_for_bytes(self, source):
        wait_until(lambda: source.qmp("query-migrate").get("ram", {}).get("transferred", 0) > SLOW, MOVE_LIMIT,
                   "the migration to be half way")

    def _wait_for(self, source, wanted):
        deadline = time.monotonic() + MOVE_LIMIT
        while (status := source.qmp("query-migrate").get("status")) != wanted:
            if status == "failed" or time.monotonic() > deadline:
                raise LabError(f"the migration is {status}, not {wanted}: {source.qmp('query-migrate').get('error-desc')}")
            time.sleep(0.05)
