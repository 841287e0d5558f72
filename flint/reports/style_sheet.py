"""How a report looks: on light and dark screens, on phones and on paper, without any request."""

from flint.reports.colours import variables

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:2.2rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.3rem;line-height:1.3;margin:3rem 0 .4rem;padding-top:1.1rem;
border-top:1px solid var(--rule)}
ul{margin:.4rem 0 .8rem;padding-left:1.2rem;max-width:52rem}
h3{font-size:1rem;margin:1.6rem 0 .4rem}
p{margin:.4rem 0 .8rem;max-width:46rem}
a{color:var(--run-1)}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
font-size:.85em}
.quiet{color:var(--quiet)}
.verdict{font-size:1.12rem;max-width:52rem;margin:1.1rem 0 1.3rem}
.badge{display:inline-block;border:1px solid var(--rule);border-radius:1rem;padding:0 .6rem;
font-size:.85rem}
.warning{border-left:4px solid var(--failed);background:var(--panel);padding:.6rem .9rem;
max-width:none}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:1.4rem 0 0;font-size:.92rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(230px,45%),1fr));gap:.7rem;padding:0;
margin:0}
.card{background:var(--panel);border-radius:.6rem;padding:.75rem .95rem}
.card dt{font-size:.84rem;color:var(--quiet)}
.card dd{margin:0;font-size:1.5rem;font-weight:600;line-height:1.35;white-space:nowrap;
font-variant-numeric:tabular-nums}
.card dd.more{font-size:.82rem;font-weight:400;color:var(--quiet);white-space:normal}
figure{margin:.9rem 0 0}
.drawing{overflow-x:auto}
.drawing svg{display:block;width:100%;min-width:620px;height:auto}
.drawing svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
sans-serif!important;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.35rem .8rem;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600}
thead th{color:var(--quiet);font-size:.85rem;vertical-align:bottom}
th:first-child,td:first-child,.words td,.words th{text-align:left}
td.name,.words td{overflow-wrap:anywhere}
td small{display:block;color:var(--quiet);white-space:nowrap}
.swatch{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.45em}
details{margin:.6rem 0}
summary{cursor:pointer;color:var(--quiet);font-size:.9rem;width:fit-content}
summary:focus-visible,a:focus-visible{outline:2px solid var(--run-1);outline-offset:2px}
pre{background:var(--panel);border-radius:.5rem;padding:.8rem 1rem;overflow-x:auto;margin:.4rem 0;
max-height:32rem}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--rule);font-size:.88rem;
color:var(--quiet)}
@media print{main{max-width:none;padding:0}nav{display:none}.drawing svg{min-width:0}
figure,.card,tr{break-inside:avoid}h2{break-after:avoid}}
"""


def style_sheet() -> str:
    """The page's CSS."""
    return (
        f":root{{color-scheme:light dark;{variables(dark=False)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(dark=True)}}}}}"
        f"{_RULES}"
    )
