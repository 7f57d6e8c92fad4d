"""How the workers of one broker, virtual host and prefix share one limit toward LCM. Pure: beats and `now` come in.

Every worker appends *beats* to one log, which all read in the same order. The `Roster` is what the log says: it is the
same for all who have read as far, and what it grants never exceeds the limit. A `Seat` is one worker's place in it:
what this worker may use now, when it has to beat, and what it says then. `worker.broker.fleet` is the log, a stream.
"""
