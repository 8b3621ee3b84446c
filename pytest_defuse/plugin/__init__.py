"""The pytest plugin. Pytest imports this package at every startup, so no import here loads torch, numpy or pydantic."""

from pytest_defuse.plugin.hooks import pytest_addoption as pytest_addoption
from pytest_defuse.plugin.hooks import pytest_assertrepr_compare as pytest_assertrepr_compare
from pytest_defuse.plugin.hooks import pytest_collect_file as pytest_collect_file
from pytest_defuse.plugin.hooks import pytest_collection_modifyitems as pytest_collection_modifyitems
from pytest_defuse.plugin.hooks import pytest_configure as pytest_configure
from pytest_defuse.plugin.hooks import pytest_generate_tests as pytest_generate_tests
from pytest_defuse.plugin.hooks import pytest_report_teststatus as pytest_report_teststatus
from pytest_defuse.plugin.hooks import pytest_runtest_call as pytest_runtest_call
from pytest_defuse.plugin.hooks import pytest_runtest_makereport as pytest_runtest_makereport
from pytest_defuse.plugin.hooks import pytest_runtest_setup as pytest_runtest_setup
