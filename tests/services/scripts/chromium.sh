# chromium, headless: the page after its scripts and a worker have run, a picture of it, and a PDF.
set -e
export HOME=/tmp
cat >page.html <<'END'
<!doctype html><title>Page</title><style>body{background:#0000ff;margin:0}h1{color:#fff}</style>
<h1 id=h>Hello</h1><canvas id=c width=50 height=50></canvas>
<script>
document.getElementById('h').textContent += ' ' + [1, 2, 3].map(x => x * x).join('+');
const g = document.getElementById('c').getContext('2d'); g.fillStyle = '#ff0000'; g.fillRect(0, 0, 50, 50);
const w = new Worker(URL.createObjectURL(new Blob(['postMessage(6 * 7)'])));
w.onmessage = e => document.title = 'worker ' + e.data;
</script>
END
browser() {
    chromium --headless=new --no-sandbox --disable-gpu --no-first-run --user-data-dir=profile "$@" 2>log ||
        fail "chromium $*" log
}
browser --dump-dom --virtual-time-budget=1000 file:///tmp/page.html
browser --screenshot=page.png --window-size=300,200 file:///tmp/page.html
sha256sum page.png
browser --print-to-pdf=page.pdf --no-pdf-header-footer file:///tmp/page.html
echo "$(head -c 5 page.pdf) $(tail -c 6 page.pdf) $(grep -ac '/Type */Page\>' page.pdf) page"
