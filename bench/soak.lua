-- What one of eight users does with the demo, again and again: log in, look around, change something, log out.
-- wrk runs this once for each of its threads, and each of them has one connection.

local cookie = nil
local step = 0

local function form(path, fields)
  local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
  return { "POST", path, headers, fields }
end

-- A login costs some 50 ms of hashing, so there is one in a hundred requests.
local function action(step)
  if step == 1 then return form("/login", "name=ada&password=lovelace") end
  if step == 99 then return form("/logout", "") end
  local turn = step % 6
  if turn == 0 then return form("/theme", step % 12 == 0 and "theme=dark" or "theme=light") end
  if turn == 1 and step < 99 then return { "GET", "/private", {} } end
  if turn == 2 and step < 99 then return { "GET", "/devices", {} } end
  if turn == 3 then return { "GET", "/style.css", {} } end
  return { "GET", "/", {} }
end

function request()
  step = (step + 1) % 100
  local method, path, headers, body = unpack(action(step))
  headers["Host"] = wrk.headers["Host"]
  headers["Origin"] = "http://" .. wrk.headers["Host"]
  headers["Cookie"] = cookie
  return wrk.format(method, path, headers, body)
end

function response(status, headers)
  local set = headers["set-cookie"]
  if set then
    cookie = set:match("^[^;]+")
    -- A removal has no value.
    if cookie:sub(-1) == "=" then cookie = nil end
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    "requests: %d, a second: %.0f, median: %.2f ms, 99 %%: %.2f ms",
    summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
  print(string.format(
    "errors: %d (connect %d, read %d, write %d, timeout %d, status %d)",
    errors.connect + errors.read + errors.write + errors.timeout + errors.status,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status
  ))
end
