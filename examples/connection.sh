# How the examples for curl reach the server; they read this file.
#
# OPENAI_BASE_URL is its address (http://localhost:8000/v1), OPENAI_API_KEY one of its keys, where it has any.

base_url=${OPENAI_BASE_URL:-http://localhost:8000/v1}
base_url=${base_url%/}

ask() {
    curl --silent --show-error --no-buffer --header "Authorization: Bearer ${OPENAI_API_KEY:-not-needed}" \
        --header 'Content-Type: application/json' "$@"
}

# End, in words, where the server can't be reached or wouldn't answer.
check_server() {
    local status
    status=$(ask --write-out '\n%{http_code}' "$base_url/auth/status" 2>/dev/null) || {
        echo "Nobody answers at $base_url. Start the server (make run), or name another in OPENAI_BASE_URL." >&2
        exit 1
    }
    case $status in
        *'"complete":true'*200) ;;
        *200) echo "$base_url has no login to Claude. ${status%$'\n'*}" >&2 && exit 1 ;;
        *401) echo "$base_url wants a key that it knows: put one into OPENAI_API_KEY." >&2 && exit 1 ;;
        *) echo "$base_url isn't such a server's address, which ends with /v1, or can't answer now: $status" >&2 && exit 1 ;;
    esac
}
