"""All of the storage at once, for what puts the parts together, the administration and the command line."""

from __future__ import annotations

from proxy.core.protocols import Clock
from proxy.storage.audit import Audit
from proxy.storage.credentials import Credentials
from proxy.storage.database import Database
from proxy.storage.identities import Identities, KeptPreferences
from proxy.storage.kept import Keeping
from proxy.storage.keys import Keys
from proxy.storage.preferences import PreferenceTable
from proxy.storage.users import Users
from proxy.storage.versions import Versions


class Store:
    """The tables of one database. `open` it before anything else; see `Database` for the URL and what is raised."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Raises ValueError for a URL of another kind."""
        self.database = Database(url, clock)
        self.users = Users(self.database)
        self.keys = Keys(self.database)
        self.preferences = PreferenceTable(self.database)
        self.credentials = Credentials(self.database)
        self.versions = Versions(self.database)
        self.audit = Audit(self.database)

    async def open(self) -> None:
        """Connect, and bring the tables up to date. Raises CapacityError, migrations.UnknownSchemaError."""
        await self.database.open()

    async def close(self) -> None:
        await self.database.close()

    def identities(self, pepper: bytes, keeping: Keeping | None = None) -> Identities:
        """Who shows a key, for `Services.identities`. One for a process: it is what `forget` is called on after a change."""
        return Identities(self.keys.find, pepper, self.database.clock, keeping or Keeping())

    def kept_preferences(self, keeping: Keeping | None = None) -> KeptPreferences:
        """What users have set, for `Services.preferences`."""
        return KeptPreferences(self.preferences.find, self.database.clock, keeping or Keeping())
