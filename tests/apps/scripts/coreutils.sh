# One call, at least, of most of coreutils.
set -e
export LC_ALL=C TZ=UTC
mkdir -p src/sub && cd src
for i in $(seq 1 20); do echo "line $i of the file" >"f$i"; done
printf '\001\002binary\377' >bin
ln -s f1 link; ln f2 hard; mkfifo pipe; touch -d '2001-02-03 04:05:06' old
chmod 640 f3; chmod u+s,o-r f4
cp -a . ../copy; cd ..
ls -1 copy | wc -l
stat -c '%n %s %a %F %h' copy/[a-rt-z]* | sort; stat -c '%n %F' copy/sub
stat -c '%Y' copy/old
date -d '2001-02-03 04:05:06' '+%F %T %j'
mv copy moved; rm -r moved/f1*; ls moved
readlink moved/link; realpath --relative-to=. moved/f2; basename /a/b.c .c; dirname /a/b.c
sort -rn -k2 src/f* | head -n 3; sort -u -t' ' -k4 src/f1 src/f2
seq 1 10 | paste -sd+; seq 1 10 | tac | head -n 2; seq -w 8 11
printf 'b 2\na 1\n' | sort >l; printf 'a x\nb y\n' >r; join l r; comm -12 <(cut -d' ' -f1 l) <(cut -d' ' -f1 r)
uniq -c <<<$'x\nx\ny'; tr a-z A-Z <<<upper; cut -c2-4 <<<abcdef; fold -w 4 <<<abcdefghij; nl l
md5sum src/f1; sha1sum src/f1; sha256sum src/bin; cksum src/f1; b2sum src/f1 | cut -c1-16
base64 <src/bin; base64 -d <<<aGVsbG8K; od -An -tx1 src/bin
split -l 30 -d <(cat src/f*) part.; wc -l part.*
head -c 5 src/f1; echo; tail -n 1 src/f20; tail -c 4 src/f20
dd if=/dev/zero of=zeros bs=1k count=64 status=none; stat -c %s zeros; truncate -s 100 zeros; stat -c '%s' zeros
tee copy1 copy2 <src/f1 >/dev/null; cmp copy1 copy2 && echo same
expr 6 \* 7; factor 5040; numfmt --to=iec 1048576; test -d src && echo directory
env -i A=1 env; id -u; whoami; nice -n 5 nice; printenv HOME
timeout 0.05 sleep 5 || echo "timeout $?"
install -m 711 -D src/f1 deep/er/file; stat -c %a deep/er/file
du -s --apparent-size -b deep/er/file | cut -f1; rmdir deep 2>/dev/null || echo "not empty"
csplit -s src/f1 1 && cat xx00; pr -t -2 <(seq 4) | expand; shuf -i 1-5 | sort | tr '\n' ' '; echo
touch a b; [ a -ef hard ] || echo different; mktemp -u XXXX | wc -c; sync; sum src/f1; tsort <<<'a b b c'
link src/f1 linked; unlink linked; ls linked 2>&1 | sed 's/.*: //'
echo "$(nproc)" | grep -c '^[0-9]'; yes | head -n 1000 | wc -c; pathchk -p ok && echo portable; sleep 0.01
mkdir many; (cd many; seq 1 300 | xargs touch); ls many | wc -l; rm -rf many src; ls
