"""The console's style: that of the reports, and what only an application needs."""

from flint.reports.style_sheet import style_sheet

_RULES = """
body>header{border-bottom:1px solid var(--rule);background:var(--panel)}
body>header>div{max-width:1240px;margin:0 auto;padding:.7rem 1.25rem;display:flex;flex-wrap:wrap;
gap:.3rem 1.6rem;align-items:baseline}
body>header strong{font-size:1.05rem}
body>header nav{margin:0;gap:.25rem 1rem}
body>header nav a{text-decoration:none;color:var(--quiet)}
body>header nav a:hover{text-decoration:underline}
body>header nav a[aria-current]{color:var(--ink);font-weight:600}
main{max-width:1240px;padding-top:1.6rem}
h2{margin:1.9rem 0 .4rem;padding-top:.8rem}
time,.id{white-space:nowrap}
td.more{overflow-wrap:anywhere}
td,th,code,dd,.isolated{unicode-bidi:isolate}
table{width:100%}
td.num,th.num{text-align:right;white-space:nowrap}
.words td.num,.words th.num{text-align:right}
td,.words td{overflow-wrap:break-word}
th[scope=row]{font-weight:400}
.more{font-size:.9rem;color:var(--quiet)}
.cards{grid-template-columns:repeat(auto-fit,minmax(min(170px,45%),1fr))}
.card dd{white-space:normal}
form{display:flex;flex-wrap:wrap;gap:.7rem 1rem;align-items:end;margin:.9rem 0 1.2rem}
label{display:grid;gap:.15rem;font-size:.86rem;color:var(--quiet)}
input,select,button{font:inherit;color:var(--ink);background:var(--paper);
border:1px solid var(--rule);border-radius:.4rem;padding:.35rem .55rem;max-width:100%}
button{background:var(--run-1);border-color:var(--run-1);color:var(--paper);cursor:pointer}
input:focus-visible,select:focus-visible,button:focus-visible{outline:2px solid var(--run-1);
outline-offset:1px}
.tag{display:inline-block;border:1px solid var(--rule);border-radius:.35rem;padding:0 .4rem;
font-size:.82rem;margin:0 .2rem .15rem 0;unicode-bidi:isolate}
.status{display:inline-block;border-radius:1rem;padding:0 .6rem;font-size:.85rem;
border:1px solid var(--rule);white-space:nowrap}
.status.running{border-color:var(--run-1);color:var(--run-1)}
.status.finished,.status.complete{border-color:var(--run-3);color:var(--run-3)}
.status.failed,.status.refused,.status.missing{border-color:var(--run-2);color:var(--run-2)}
.facts{display:grid;grid-template-columns:max-content minmax(0,1fr);
gap:.25rem 1.2rem;margin:.9rem 0}
.facts dt{color:var(--quiet)}
.facts dd{margin:0;overflow-wrap:anywhere}
.pages{display:flex;gap:1.2rem;margin:.8rem 0;font-size:.92rem;color:var(--quiet)}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(340px,100%),1fr));gap:0 2rem}
svg.chart{display:block;width:100%;max-width:760px;height:auto;margin:.6rem 0}
svg text{fill:var(--ink);font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
svg .tick,svg .axis{font-size:11px;fill:var(--quiet)}
svg .end{text-anchor:end}
svg .middle{text-anchor:middle}
svg .grid{stroke:var(--rule);stroke-width:.6}
svg .line{fill:none;stroke:var(--run-1);stroke-width:1.8;stroke-linejoin:round}
svg .mark{fill:var(--run-1)}
svg.lineage{display:block;max-width:100%;min-width:860px;height:auto}
svg.lineage.wide{min-width:1500px;max-width:none}
svg .edge{fill:none;stroke:var(--quiet);stroke-width:1.1;opacity:.75}
svg .tip{fill:var(--quiet)}
svg .node rect{fill:var(--panel);stroke:var(--rule)}
svg .node .kind{font-size:10.5px;fill:var(--quiet)}
svg .root rect{stroke:var(--run-1);stroke-width:2}
svg .unknown rect{stroke-dasharray:4 3;fill:none;stroke:var(--quiet)}
svg a:hover rect,svg a:focus rect{stroke:var(--run-1)}
svg a text:not(.kind){fill:var(--run-1)}
@media (max-width:640px){.words td:not(.num){min-width:8rem}
th,td{padding:.3rem .45rem}h1{font-size:1.5rem}main{padding-top:1rem}
.facts{grid-template-columns:minmax(0,1fr)}.facts dt{margin-top:.4rem}}
"""


def console_style() -> str:
    """CSS of every page of the console."""
    return style_sheet() + _RULES
