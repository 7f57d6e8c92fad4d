"""All targets, by their names."""

from tests.fuzz.target import Target
from tests.fuzz.targets import broker, commands, configuration, lcm, messages

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (messages, lcm, broker, commands, configuration)
    for target in module.TARGETS
}
