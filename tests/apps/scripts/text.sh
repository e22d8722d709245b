# diff, sed, awk, grep.
export LC_ALL=C
seq 1 30 >a; sed -e '5d' -e '10s/.*/ten/' -e '20i\inserted' a >b
diff a b; echo "status $?"; diff -u a b | tail -n +3; diff -q a b; cmp a b; diff a a && echo equal
diff -u a b >p; cp a c; patch -s c p 2>/dev/null && cmp c b && echo patched || echo "no patch"
sed -n '/5/,/8/p;$=' a; sed -E 's/([0-9])([0-9])/\2\1/' a | head -n 12 | tail -n 3; sed -i.bak 's/1/X/g' c; head -n 2 c c.bak
printf 'k=v\nname=value with spaces\n' | sed 's/=/: /;y/abc/ABC/'
sed ':a;N;$!ba;s/\n/,/g' a | cut -c1-30
awk -F, '{ n[$1]++; s[$1] += $2 } END { for (k in n) print k, n[k], s[k] | "sort" }' <<END
a,1
b,2
a,3
c,4
b,5
END
awk 'BEGIN { while (("seq 1 3" | getline x) > 0) print "got " x; printf "%5.1f|%-5s|%05d\n", 3.14159, "ab", 42; print length("hello"), substr("hello", 2, 3), toupper("x"), index("abc", "c") }'
awk 'NR % 7 == 0 { print NR ": " $0 > "sevens" } END { close("sevens"); while ((getline l < "sevens") > 0) print l }' a
awk 'BEGIN { system("echo from system; exit 3"); print "x" | "cat 1>&2"; close("cat 1>&2"); split("a:b:c", p, ":"); print p[3]; exit 5 }'
echo "awk status $?"
grep -n '^1' a | head -n 3; grep -c 2 a; grep -v '[0-4]' a; grep -r --include=a -l 30 . ; grep -E -o '[12]+' b | sort | uniq -c | head -n 3; grep -q nothing a || echo none
