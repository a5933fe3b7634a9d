#!/usr/bin/env bash
# Let the server remember a conversation, with curl.
#
#     examples/session_curl_example.sh
#
# OPENAI_BASE_URL is the server (http://localhost:8000/v1), OPENAI_API_KEY one of its keys, where it has any.
set -euo pipefail
base_url=${OPENAI_BASE_URL:-http://localhost:8000/v1}
session_id=example-$$-$RANDOM

ask() {
    curl --silent --show-error --header "Authorization: Bearer ${OPENAI_API_KEY:-not-needed}" \
        --header 'Content-Type: application/json' "$@"
}

say() {
    printf '\n--- %s\n' "$1"
    ask --fail-with-body "$base_url/chat/completions" --data '{
        "model": "sonnet",
        "session_id": "'"$session_id"'",
        "messages": [{"role": "user", "content": "'"$1"'"}]
    }'
}

status=$(ask --output /dev/null --write-out '%{http_code}' "$base_url/auth/status")
if [ "$status" = 401 ]; then
    echo "$base_url wants a key that it knows: put one into OPENAI_API_KEY." >&2
    exit 1
fi

say 'My name is Ada.'
say 'What is my name?'

printf '\n\n--- The session\n'
ask "$base_url/sessions/$session_id"
printf '\n\n--- Forgotten\n'
ask --request DELETE "$base_url/sessions/$session_id"
printf '\n\n--- Gone\n'
ask "$base_url/sessions/$session_id"
echo
