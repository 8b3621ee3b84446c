"""The pytest plugin. Pytest imports this package at every startup, so no import here loads torch, numpy or pydantic."""

from pytest_defuse.plugin.hooks import (
    pytest_addoption,
    pytest_assertrepr_compare,
    pytest_collect_file,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_report_teststatus,
    pytest_runtest_makereport,
)

__all__ = [
    "pytest_addoption",
    "pytest_assertrepr_compare",
    "pytest_collect_file",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_report_teststatus",
    "pytest_runtest_makereport",
]
