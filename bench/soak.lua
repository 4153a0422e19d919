-- What one of eight browsers does with the demo, again and again: log in, look around, change something, log out.
-- wrk runs this once for each of its threads, and each of them has one connection.

local cookie = nil
local step = 0
local expected = nil
wrong = 0

-- wrk keeps the threads, so that their globals can be read in the end.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

local function get(path)
  return 200, "GET", path, {}
end

local function post(path, fields)
  return 303, "POST", path, { ["Content-Type"] = "application/x-www-form-urlencoded" }, fields
end

-- A login costs some 50 ms of hashing, so there is one in a hundred requests. Pages for members are asked for between it and the
-- logout, and are a 303 to the login for anybody else.
local function action(step)
  if step == 1 then return post("/login", "username=ada&password=lovelace") end
  if step == 99 then return post("/logout", "") end
  local turn = step % 6
  local is_member = step > 1 and step < 99
  if turn == 0 then return post("/theme", step % 12 == 0 and "theme=dark" or "theme=light") end
  if turn == 1 and is_member then return get("/private") end
  if turn == 2 and is_member then return get("/devices") end
  if turn == 3 then return get("/style.css") end
  return get("/")
end

function request()
  step = (step + 1) % 100
  local method, path, headers, body
  expected, method, path, headers, body = action(step)
  headers["Host"] = wrk.headers["Host"]
  headers["Origin"] = "http://" .. wrk.headers["Host"]
  headers["Cookie"] = cookie
  return wrk.format(method, path, headers, body)
end

-- wrk asks for one request before the first connection, which is never sent.
function init()
  step = -1
end

function response(status, headers)
  if status ~= expected then wrong = wrong + 1 end
  local set = headers["set-cookie"]
  if set then
    cookie = set:match("^[^;]+")
    -- A removal has no value.
    if cookie:sub(-1) == "=" then cookie = nil end
  end
end

function done(summary, latency)
  local errors = summary.errors
  local unexpected = 0
  for _, thread in ipairs(threads) do unexpected = unexpected + thread:get("wrong") end
  print(string.format(
    "requests: %d, a second: %.0f, median: %.2f ms, 99 %%: %.2f ms",
    summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
  print(string.format(
    "errors: %d (connect %d, read %d, write %d, timeout %d, unexpected status %d)",
    errors.connect + errors.read + errors.write + errors.timeout + unexpected,
    errors.connect, errors.read, errors.write, errors.timeout, unexpected
  ))
end
