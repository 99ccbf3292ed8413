"""The cluster launcher's file is what Ray's own checks take, and opens nothing."""

from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from manifests import CLUSTER
from ray_asd import config
from test_kubernetes import RECIPES, needs


@pytest.fixture
def cluster() -> dict[str, Any]:
    prepared: dict[str, Any] = prepare_config(yaml.safe_load((CLUSTER / "aws.yaml").read_text()))
    return prepared


def test_ray_takes_it(cluster: dict[str, Any]) -> None:
    validate_config(cluster)
    cluster["available_node_types"]["gpu"]["max_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(cluster)


def test_the_head_stays_and_workers_come_when_asked_for(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    for name in ("cpu", "gpu"):
        assert types[name]["min_workers"] == 0
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert sum(types[name]["max_workers"] for name in ("cpu", "gpu")) <= cluster["max_workers"]
    held = [(node["resources"]["CPU"], node["resources"].get("GPU", 0), 0.0) for node in types.values()]
    assert all(worker.memory_gb is None for recipe in RECIPES for worker in [config.load(recipe).resources.train])
    assert [recipe for recipe in RECIPES for need in needs(recipe) if not any(map(need, held))] == []


def test_nothing_is_open_and_no_key_is_stored(cluster: dict[str, Any]) -> None:
    assert cluster["provider"]["use_internal_ips"]
    assert "aws ssm start-session" in cluster["auth"]["ssh_proxy_command"]
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"], "Ray's own would open SSH to everybody"
        assert node["node_config"]["IamInstanceProfile"]["Arn"].startswith("arn:aws:iam::")
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    (start,) = [line for line in cluster["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    (target,) = cluster["file_mounts"]
    assert f"--env RAY_AUTH_TOKEN_PATH={target}" in cluster["docker"]["run_options"]
