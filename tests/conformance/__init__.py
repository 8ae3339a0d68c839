"""Public suites for implementers: subclass, set a few properties, inherit every test.

from tests.conformance.provider import ProviderConformance

class TestMine(ProviderConformance):
    @property
    def provider(self): return Mine(MineSettings(api_key="env:KEY"))
    ...
"""
