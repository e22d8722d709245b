# git: commits with fixed dates have fixed ids.
set -e
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@b HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git init -q -b main repo; cd repo; git config gc.auto 0
for i in $(seq 1 10); do echo "content $i" >f$i; git add .; git commit -qm "commit $i"; done
git log --oneline; git checkout -qb side HEAD~3; echo side >s; git add s; git commit -qm side
git checkout -q main; git merge -q --no-edit side; git log --graph --oneline | head -n 5
git diff --stat HEAD~2; echo changed >f1; git status --short; git stash -q; git stash pop -q; git diff; git checkout -q f1
git tag v1; git gc -q; git count-objects -v | grep -E '^(in-pack|packs|prune)'; git fsck 2>/dev/null; git rev-parse HEAD
cd ..; git clone -q repo copy 2>/dev/null; cd copy; git log -1 --format=%H; echo x >new; git add new; git commit -qm new; git push -q origin HEAD:refs/heads/pushed; cd ../repo; git branch --list | cat
git mv f2 renamed; git rm -q f3; git commit -qm moves; git show --stat --format=%s HEAD; git blame -s f1 | cut -c1-8; git bisect start -q HEAD HEAD~5 2>/dev/null | head -n 1; git bisect reset -q 2>/dev/null
git grep -c content | head -n 3; git archive HEAD | tar t | head -n 3; git rebase -q HEAD~1 && echo rebased; git repack -adq; git verify-pack .git/objects/pack/*.idx && echo verified
