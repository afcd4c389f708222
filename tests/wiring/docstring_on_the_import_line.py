# Copyright 2021-2026 Example Ltd.
# SPDX-License-Identifier: MIT
r"""Billing \o/"""
from fastapi import FastAPI  # type: ignore[import-untyped]
# the app
app = FastAPI()  # noqa: E305
# the end
