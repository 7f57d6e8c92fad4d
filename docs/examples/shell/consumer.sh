#!/bin/sh
# Takes the results of one route from a durable queue, until Ctrl-C.
#
#     apt-get install amqp-tools jq
#     AMQP_URL=amqp://user:password@host:5672 sh consumer.sh
#
# Shows acknowledging once a result is handled, dropping repeats, and skipping outcome lists that are the same as before
# by their fingerprint. amqp-consume makes no quorum queue and binds no durable one: the queue has to be there, as the
# other consumers make it. It hands over the body of a result alone, so repeats are told by job and status in place of
# the message_id: the second end of a job that was replayed counts as one.
set -eu

url=${AMQP_URL:-amqp://guest:guest@127.0.0.1:5672}
queue=lcm.outcome.results.emea
memory=${MEMORY:-consumer-memory} # a folder: which results were seen, and the last list of each account

on_result() {
    result=$(cat)
    id=$(field '"\(.job_id) \(.status)"')
    if grep -qxF -e "$id" "$memory/seen"; then
        echo "repeat $id"
    else
        handle
        echo "$id" >> "$memory/seen"
    fi
}

handle() {
    if [ "$(field .status)" = failed ]; then
        echo "failed $(field .job_id) $(field .error.code)"
        return
    fi
    account=$(field .account_number) looked_up_at=$(field .looked_up_at) fingerprint=$(field .fingerprint)
    list=$memory/$(printf %s "$account" | sha256sum | cut -d ' ' -f 1)
    known_at='' known_fingerprint=''
    if [ -e "$list" ]; then read -r known_at known_fingerprint < "$list"; fi
    if expr "$looked_up_at" \< "$known_at" > /dev/null; then # results come in any order; the times sort as text
        echo "older $account"
        return
    fi
    if [ "$fingerprint" = "$known_fingerprint" ]; then
        echo "unchanged $account"
    else
        echo "changed $account $(field '[.outcomes[].id] | join(" ")')"
    fi
    echo "$looked_up_at $fingerprint" > "$list"
}

field() {
    printf %s "$result" | jq -r "$1"
}

if [ "${1-}" = on-result ]; then
    # A result that failed would stay with amqp-consume, which takes no other before: so that ends, and the result comes
    # again to the next one. Leave starting it to what runs your services.
    trap '[ $? -eq 0 ] || kill "$PPID"' EXIT
    on_result
else
    mkdir -p "$memory"
    touch "$memory/seen"
    echo "consuming $queue"
    # It runs the command for each result, and acknowledges the result where the command's status is 0.
    exec amqp-consume --url="$url" --queue="$queue" --prefetch-count=1 sh "$0" on-result
fi
