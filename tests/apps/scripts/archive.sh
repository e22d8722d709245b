# tar with each compressor, and what comes out again.
set -e
export LC_ALL=C TZ=UTC
mkdir -p tree/sub; for i in $(seq 1 50); do seq 1 $((i * 20)) >tree/f$i; done
ln -s f1 tree/link; ln tree/f2 tree/hard; mkfifo tree/fifo; printf 'x%.0s' $(seq 300) >tree/sub/x; chmod 600 tree/f3
find tree -exec touch -hd '2020-01-01' {} +
(cd tree; find . -type f | sort | xargs sha256sum) >sums
tar --sort=name --owner=0 --group=0 --numeric-owner -cf a.tar tree; sha256sum a.tar
tar tvf a.tar | sort | tail -n 5
for c in gzip xz bzip2; do
    command -v $c >/dev/null || continue
    tar -cf a.tar.$c --use-compress-program=$c tree
    mkdir out.$c; tar -xf a.tar.$c -C out.$c --use-compress-program=$c
    (cd out.$c/tree; sha256sum -c --quiet ../../sums && echo "$c: all as before"; stat -c '%a %Y %F' f3 link fifo; [ f2 -ef hard ] && echo "$c: hard link kept")
done
gzip -9k a.tar; gzip -l a.tar.gz | awk 'NR == 2 { print $2 }'; gzip -t a.tar.gz && echo good; zcat a.tar.gz | cmp - a.tar && echo same
xz -T2 -k a.tar; xz -dc a.tar.xz | cmp - a.tar && echo same; xz -t a.tar.xz
dd if=/dev/urandom bs=64k count=20 status=none >noise; gzip -c noise | gunzip | cmp - noise && echo noise
tar -rf a.tar sums; tar -tf a.tar | tail -n 1; tar -xOf a.tar tree/f1 | tail -n 1; tar -cf - tree | tar -xf - -C out.gzip; ls out.gzip
printf corrupted >>a.tar.gz; gzip -t a.tar.gz 2>/dev/null || echo "trailing garbage: $?"
