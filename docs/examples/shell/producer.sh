#!/bin/sh
# Publishes a job for each account number.
#
#     apt-get install amqp-tools jq
#     AMQP_URL=amqp://user:password@host:5672 sh producer.sh '18|1|2|0|0|44|274' ...
#
# amqp-publish can neither ask for confirms nor publish mandatory, and sets no message_id, user_id or app_id. So a job
# that the broker returns or refuses is lost without a word: use it by hand and for trials, not where jobs count.
set -eu

url=${AMQP_URL:-amqp://guest:guest@127.0.0.1:5672}
exchange=lcm.outcome.jobs
routing_key=job
route=emea

new_job() {
    jq -nc --arg id "$(cat /proc/sys/kernel/random/uuid)" --arg account "$1" --arg route "$route" \
        '{job_id: $id, account_number: $account, route: $route}'
}

publish() {
    amqp-publish --url="$url" --exchange="$exchange" --routing-key="$routing_key" \
        --persistent --content-type=application/json --body="$1"
}

for account_number; do
    # Where this ends with an error, such as a lost connection, publish the same job again: by its id, consumers drop a
    # repeat.
    publish "$(new_job "$account_number")"
    echo "sent $account_number"
done
