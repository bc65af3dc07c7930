package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/template"
)

// The picture's measures, in pixels.
const (
	plotLabel = 330 // of the column of names
	plotBars  = 460 // of the longest bar
	plotRow   = 24
	plotHead  = 46 // of a panel's title
)

type plotPanel struct {
	Title string
	Y     int
	Rows  []plotRowView
}

type plotRowView struct {
	Label string
	Y     int
	Bars  []plotBar
	Text  string
	TextX int
}

type plotBar struct {
	X, Width int
	Colour   string
	Title    string
}

type plotView struct {
	Width, Height int
	Caption       string
	Panels        []plotPanel
}

var plotTemplate = template.Must(template.New("plot").Parse(`<svg xmlns="http://www.w3.org/2000/svg"
     width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="22" font-size="12" fill="#555">{{.Caption | html}}</text>
{{- range .Panels}}
<text x="10" y="{{.Y}}" font-weight="bold">{{.Title | html}}</text>
{{- range .Rows}}
<text x="320" y="{{.Y}}" text-anchor="end">{{.Label | html}}</text>
{{- $y := .Y}}
{{- range .Bars}}
<rect x="{{.X}}" y="{{$y}}" width="{{.Width}}" height="16" transform="translate(0 -13)" fill="{{.Colour}}">
<title>{{.Title | html}}</title></rect>
{{- end}}
<text x="{{.TextX}}" y="{{.Y}}" fill="#333">{{.Text | html}}</text>
{{- end}}
{{- end}}
</svg>
`))

// writePlot draws the pooled figures as an SVG.
func writePlot(out io.Writer, r results) error {
	view := plotView{
		Width:   plotLabel + plotBars + 440,
		Caption: fmt.Sprintf("%s, commit %s, %d × %s", r.Date.Format("2006-01-02"), r.Commit, r.Machine.Cores, r.Machine.CPU),
	}
	y := 50
	for _, panel := range []plotPanel{
		chartPanel(r.Systems),
		stackPanel("CPU time a delivery, ms, by process", r.Systems, func(p phase) map[string]float64 { return p.CPU }),
		stackPanel("Peak memory, MiB, by process", r.Systems, func(p phase) map[string]float64 { return p.Memory }),
		speedPanel(r.Systems),
	} {
		panel.Y = y
		for i := range panel.Rows {
			panel.Rows[i].Y = y + (i+1)*plotRow
		}
		y += len(panel.Rows)*plotRow + plotHead
		view.Panels = append(view.Panels, panel)
	}
	view.Height = y
	return plotTemplate.Execute(out, view)
}

// chartPanel shows p50 to p99 of the time to the chart, on a logarithmic scale from 1 ms to 100 s.
func chartPanel(systems []systemResult) plotPanel {
	panel := plotPanel{Title: fmt.Sprintf("Time to the chart at %d/s: p50 to p99, logarithmic from 1 ms to 100 s", memoryRate)}
	position := func(ms float64) int { return plotLabel + int(plotBars*min(math.Log10(max(ms, 1)), 5)/5) }
	for _, s := range systems {
		row := plotRowView{Label: s.Title, TextX: plotLabel, Text: missingText(s)}
		if p, ok := s.All.at(memoryRate); ok && s.NotMeasured == "" {
			from, to := position(p.Chart.P50), position(p.Chart.P99)
			row.Text, row.TextX = queues, plotLabel
			if !p.Queues {
				row.Text, row.TextX = fmt.Sprintf("%s – %s ms", number(p.Chart.P50), number(p.Chart.P99)), to+12
				row.Bars = []plotBar{{from, max(to-from, 4), colours()[0], row.Text}}
			}
		}
		panel.Rows = append(panel.Rows, row)
	}
	return panel
}

// stackPanel shows the parts of each contender beside each other, without the EHR.
func stackPanel(title string, systems []systemResult, of func(phase) map[string]float64) plotPanel {
	longest := 0.0
	for _, s := range systems {
		if p, ok := s.All.at(memoryRate); ok {
			longest = max(longest, sumParts(of(p)))
		}
	}

	panel := plotPanel{Title: fmt.Sprintf("%s, at %d/s", title, memoryRate)}
	for _, s := range systems {
		row := plotRowView{Label: s.Title, TextX: plotLabel, Text: missingText(s)}
		if p, ok := s.All.at(memoryRate); ok && s.NotMeasured == "" {
			row.stack(of(p), longest)
		}
		panel.Rows = append(panel.Rows, row)
	}
	return panel
}

func (row *plotRowView) stack(parts map[string]float64, longest float64) {
	x, text := float64(plotLabel), number(sumParts(parts))
	others := 0
	for i, name := range plotParts(parts) {
		colour, known := map[string]string{"PostgreSQL": "#efb118", temporalPart: "#3ca951"}[name]
		if !known {
			colour = colours()[others%len(colours())]
			others++
		}
		width := plotBars * parts[name] / max(longest, 1e-9)
		title := name + " " + number(parts[name])
		row.Bars = append(row.Bars, plotBar{int(x), int(x+width) - int(x), colour, title})
		x += width
		text += map[bool]string{true: ": ", false: ", "}[i == 0] + title
	}
	row.Text, row.TextX = text, int(x)+8
}

// plotParts are the names of the parts in an order that puts PostgreSQL and Temporal at the end, where they compare.
func plotParts(parts map[string]float64) []string {
	names := slices.Sorted(maps.Keys(parts))
	last := func(name string) bool { return name == "PostgreSQL" || name == temporalPart }
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case last(a) == last(b):
			return 0
		case last(a):
			return 1
		}
		return -1
	})
	return slices.DeleteFunc(names, func(name string) bool { return name == ehrPart })
}

func sumParts(parts map[string]float64) (sum float64) {
	for _, name := range plotParts(parts) {
		sum += parts[name]
	}
	return sum
}

func speedPanel(systems []systemResult) plotPanel {
	longest := 0.0
	for _, s := range systems {
		p, _ := s.All.at(0)
		longest = max(longest, p.PerSecond)
	}
	panel := plotPanel{Title: "Deliveries a second, saturated"}
	for _, s := range systems {
		row := plotRowView{Label: s.Title, TextX: plotLabel, Text: missingText(s)}
		if p, ok := s.All.at(0); ok && s.NotMeasured == "" {
			width := int(plotBars * p.PerSecond / max(longest, 1e-9))
			row.Text, row.TextX = speeds(s), plotLabel+width+8
			row.Bars = []plotBar{{plotLabel, max(width, 1), colours()[0], row.Text}}
		}
		panel.Rows = append(panel.Rows, row)
	}
	return panel
}

func missingText(s systemResult) string {
	if s.NotMeasured != "" {
		return "not measured"
	}
	return "–"
}

// colours are those of a contender's own parts.
func colours() []string { return []string{"#4269d0", "#ff725c", "#a463f2"} }
