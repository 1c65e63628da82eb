#!/bin/sh
# The page of the web image: says which pod answered. busybox' httpd runs it for "/".
pod=$(hostname)
address=$(hostname -i 2>/dev/null)
printf 'Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n\r\n'
cat <<END
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Hello from $pod</title>
<style>
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: #101820; color: #e8eef2;
       font: 18px/1.5 system-ui, sans-serif; }
main { padding: 2.5rem 3rem; border-left: 6px solid #ffc61c; background: #18242e; border-radius: 4px; }
h1 { margin: 0 0 .5rem; font-size: 1.6rem; }
p { margin: .2rem 0; color: #a9b8c4; }
code { color: #ffc61c; }
</style>
</head>
<body>
<main>
<h1>Hello from your cluster</h1>
<p>pod <code>$pod</code></p>
<p>address <code>$address</code></p>
<p>asked from <code>${REMOTE_ADDR:-somewhere}</code></p>
</main>
</body>
</html>
END
