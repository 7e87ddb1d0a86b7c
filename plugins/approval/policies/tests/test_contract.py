"""The four policies keep the contract of all approval policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from codex_approval_policies import Never, OnFailure, OnRequest, Untrusted
from codex_core.testing import ApprovalPolicyContract

if TYPE_CHECKING:
    from codex_core.hookspecs import ApprovalPolicy


@pytest.mark.parametrize("kind", [Never, OnFailure, OnRequest, Untrusted])
class TestPolicies(ApprovalPolicyContract):
    @pytest.fixture
    def plugin(self, kind: type[ApprovalPolicy]) -> ApprovalPolicy:
        return kind()
