"""Which routes take no messages: one canary at a time, at a growing pace, and bounded memory."""

from __future__ import annotations

from worker.broker.routes import Routes


def failing(routes: Routes, route: str, now: float, *, refused: bool = False) -> bool:
    return routes.not_taken(route, "nobody is bound", now, refused=refused)


def test_a_route_without_trouble_admits_everything() -> None:
    """Nothing is remembered of it."""
    routes = Routes()
    assert routes.admits("a", 0)
    assert routes.taken("a") is None
    assert routes.next_try() is None


def test_canaries_come_at_a_growing_pace() -> None:
    """After 30 s, then with pauses that double up to 10 minutes; in between nothing is admitted."""
    routes = Routes()
    assert failing(routes, "a", 0)
    admitted = []
    for now in range(4000):
        if routes.admits("a", now):
            admitted.append(now)
            assert not failing(routes, "a", now)
    assert admitted == [30, 90, 210, 450, 930, 1530, 2130, 2730, 3330, 3930]


def test_one_canary_at_a_time() -> None:
    """While the canary is under way nobody else is admitted."""
    routes = Routes()
    failing(routes, "a", 0)
    assert [routes.admits("a", 30) for _ in range(3)] == [True, False, False]


def test_a_message_that_was_taken_ends_the_trouble() -> None:
    """It tells since when the route took nothing, and whether it was refused; then all are admitted again."""
    routes = Routes()
    failing(routes, "a", 5, refused=True)
    failing(routes, "b", 6)
    assert routes.next_try() == 35
    trouble = routes.taken("a")
    assert trouble is not None
    assert (trouble.since, trouble.refused) == (5, True)
    assert "a" not in routes
    assert "b" in routes
    assert routes.admits("a", 6)


def test_memory_is_bounded() -> None:
    """Producers choose the names of routes: of too many the oldest are forgotten, and tried like any other."""
    routes = Routes()
    for number in range(1500):
        failing(routes, f"r{number}", number)
    assert "r499" not in routes
    assert "r500" in routes
    assert routes.admits("r0", 1500)
