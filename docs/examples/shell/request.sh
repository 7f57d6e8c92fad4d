#!/bin/sh
# Asks for one account's outcomes and waits for the answer, in a queue of its own.
#
#     apt-get install amqp-tools jq
#     AMQP_URL=amqp://user:password@host:5672 sh request.sh '18|1|2|0|0|44|274'
#
# Shows request and response without a queue of results: the workers need broker.reply_to_prefixes to hold
# "dialer.replies.". Direct reply-to, as the other languages have it, needs a program that publishes and consumes on one
# channel. amqp-publish notices neither a return nor a nack, so both end as "no reply", as a lost reply does: ask again.
set -eu

url=${AMQP_URL:-amqp://guest:guest@127.0.0.1:5672}
exchange=lcm.outcome.jobs
routing_key=job
timeout=30 # seconds

job_id=$(cat /proc/sys/kernel/random/uuid)
replies=dialer.replies.$job_id
# Nobody waits for the answer after the deadline: the workers then don't ask LCM for it.
deadline=$(date --utc --date="$timeout seconds" +%Y-%m-%dT%H:%M:%SZ)
job=$(jq -nc --arg id "$job_id" --arg account "$1" --arg deadline "$deadline" \
    '{job_id: $id, account_number: $account, deadline: $deadline}')

amqp-declare-queue --url="$url" --queue="$replies" --durable > /dev/null
trap 'amqp-delete-queue --url="$url" --queue="$replies" > /dev/null' EXIT
amqp-publish --url="$url" --exchange="$exchange" --routing-key="$routing_key" --reply-to="$replies" \
    --content-type=application/json --body="$job"
result=$(timeout "$timeout" amqp-consume --url="$url" --queue="$replies" --count=1 cat) || {
    echo "no reply: ask again" >&2
    exit 1
}
printf %s "$result" | jq -r '
    if .status == "failed" then "failed: \(.error.code): \(.error.message)\n" | halt_error(1)
    else .outcomes[] | "\(.id) \(.description)" end'
