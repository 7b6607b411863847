"""Real servers for tests."""

import pytest

# Before anybody imports it: a plugin that was imported by a test is too late to have its assertions explained.
pytest.register_assert_rewrite("tests.services.condor")
